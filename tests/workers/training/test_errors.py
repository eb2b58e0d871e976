import pickle

import pytest

from xsam.workers.training import errors

ERRORS = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]


@pytest.mark.parametrize("kind", ERRORS)
def test_error__survives_the_way_out_of_a_process(kind: type[Exception]) -> None:
    error = pickle.loads(pickle.dumps(kind("what, which value, what is allowed")))
    assert type(error) is kind
    assert str(error) == "what, which value, what is allowed"


def test_errors__are_all_training_errors() -> None:
    assert all(issubclass(kind, errors.TrainingError) for kind in ERRORS)
