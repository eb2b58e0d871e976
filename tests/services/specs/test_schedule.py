"""How the learning rate moves."""

import math
from typing import Any

import pytest
from pydantic import TypeAdapter

from xsam.services.specs.schedule import Schedule


def factors(spec: dict[str, Any], epochs: list[float]) -> list[float]:
    schedule = TypeAdapter(Schedule).validate_python(spec)
    return [schedule.factor(epoch, 10) for epoch in epochs]


@pytest.mark.parametrize(
    ("spec", "epochs", "expected"),
    [
        ({"name": "constant"}, [0, 5, 10], [1, 1, 1]),
        ({"name": "constant", "warmup_epochs": 2}, [0, 1, 2, 9], [0, 0.5, 1, 1]),
        ({"name": "linear"}, [0, 2.5, 10], [1, 0.75, 0]),
        ({"name": "linear", "warmup_epochs": 5, "final_factor": 0.2}, [2.5, 5, 7.5, 10], [0.5, 1, 0.6, 0.2]),
        ({"name": "cosine", "final_factor": 0.1}, [0, 5, 10], [1, 0.55, 0.1]),
        ({"name": "step", "milestones": [4, 8]}, [3.9, 4, 8], [1, 0.1, 0.01]),
        ({"name": "one_cycle", "start_factor": 0.2, "final_factor": 0}, [0, 1.5, 3, 6.5, 10], [0.2, 0.6, 1, 0.5, 0]),
        ({"name": "one_cycle"}, [0, 10], [0.04, 4e-6]),
    ],
)
def test_factor__at_points_of_a_run(spec: dict[str, Any], epochs: list[float], expected: list[float]) -> None:
    assert all(math.isclose(a, b, abs_tol=1e-12) for a, b in zip(factors(spec, epochs), expected, strict=True))
