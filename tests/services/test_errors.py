import pickle

import pytest

from xsam.services import errors
from xsam.services.errors import ServiceError

ALL = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, ServiceError)]


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("field", [None, "resources.num_workers"])
def test_error__survives_pickling(kind: type[ServiceError], field: str | None) -> None:
    copy = pickle.loads(pickle.dumps(kind("too many", field)))
    assert type(copy) is kind
    assert (copy.message, copy.field, str(copy), copy.code) == ("too many", field, "too many", kind.code)


def test_errors__have_codes_of_their_own() -> None:
    assert len({kind.code for kind in ALL}) == len(ALL)
