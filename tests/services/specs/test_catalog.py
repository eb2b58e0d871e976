from collections.abc import Callable

import pytest
from pydantic import TypeAdapter

from xsam.services.specs import catalog
from xsam.services.specs.catalog import Catalog
from xsam.services.specs.dataset import DATASETS, Dataset
from xsam.services.specs.model import MODELS, Model
from xsam.services.specs.optimizer import OPTIMIZERS, Optimizer


@pytest.mark.parametrize(
    ("listing", "union", "names"),
    [
        (catalog.optimizers, Optimizer, OPTIMIZERS),
        (catalog.models, Model, MODELS),
        (catalog.datasets, Dataset, DATASETS),
    ],
)
def test_catalog__lists_exactly_what_a_specification_takes(
    listing: Callable[[], Catalog], union: object, names: dict[str, object]
) -> None:
    schema = TypeAdapter(union).json_schema()
    taken = set(schema["discriminator"]["mapping"]) - {"task"}  # it stands where the job's own code does
    entries = listing().items
    assert {entry.name for entry in entries} == taken == set(names)
    for entry in entries:
        assert entry.description
        assert entry.options_schema["additionalProperties"] is False
