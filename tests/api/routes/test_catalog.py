import jsonschema
import pytest

from xsam.api.client import Client
from xsam.services.specs.dataset import DATASETS
from xsam.services.specs.model import MODELS
from xsam.services.specs.optimizer import OPTIMIZERS


@pytest.mark.parametrize(("kind", "names"), [("optimizers", OPTIMIZERS), ("models", MODELS), ("datasets", DATASETS)])
def test_catalog__lists_all_with_description_and_schema(client: Client, kind: str, names: dict[str, object]) -> None:
    entries = getattr(client, kind)()
    assert [entry.name for entry in entries] == list(names)
    assert all(entry.description for entry in entries)
    for entry in entries:
        jsonschema.Draft202012Validator.check_schema(entry.options_schema)


def test_catalog__schema_says_what_a_submit_would(client: Client) -> None:
    schema = next(entry for entry in client.optimizers() if entry.name == "xsam").options_schema
    check = jsonschema.Draft202012Validator(schema)
    assert check.is_valid({"variant": "xsam", "rho": 0.1, "base": {"name": "adamw", "lr": 1e-3}})
    assert not check.is_valid({"variant": "xsam", "rho": -0.1})
    assert not check.is_valid({"variant": "xsam", "radius": 0.1})
    assert not check.is_valid({"variant": "xsam", "base": {"name": "lamb"}})
