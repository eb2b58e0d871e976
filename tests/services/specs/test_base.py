"""What every part of a specification refuses, whatever it is about."""

from typing import Any

import pytest
from pydantic import ValidationError

from xsam.services.specs.base import MAX_OPTION_DEPTH
from xsam.services.specs.job import JobSpec
from xsam.services.specs.optimizer import OPTIMIZERS


def _with_options(options: dict[str, Any]) -> dict[str, Any]:
    return {"model": {"name": "custom", "target": "ours.nets:make", "options": options}}


def _nested(depth: int) -> dict[str, Any]:
    options: dict[str, Any] = {}
    inner = options
    for _ in range(depth):
        inner["in"] = {}
        inner = inner["in"]
    return options


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"text": "ünïcödé \n", "flag": True, "nothing": None, "numbers": [1, -0.5, 2**63 - 1, -(2**63) + 1]},
        _nested(MAX_OPTION_DEPTH),
    ],
)
def test_options__are_kept_as_they_are(options: dict[str, Any]) -> None:
    spec = JobSpec.model_validate(_with_options(options))
    assert spec.model_dump(mode="json")["model"]["options"] == options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"a": "\x00"}, "without control characters"),
        ({"a": [{"b": "x\x00"}]}, "without control characters"),
        ({"\x00": 1}, "without control characters"),
        ({"a": "\x1b[2J"}, "without control characters"),
        ({"a": "\ud800"}, "lone surrogates"),
        ({"a": [2**63]}, "at most 64 bits"),
        ({"a": float("nan")}, "finite"),
        (_nested(MAX_OPTION_DEPTH + 1), f"at most {MAX_OPTION_DEPTH} deep"),
        ({str(number): 1 for number in range(101)}, "at most 100 items"),
    ],
)
def test_options__refuse_what_a_database_may_not_store(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        JobSpec.model_validate(_with_options(options))


@pytest.mark.parametrize(
    "spec",
    [
        {"epochs": True},
        {"seed": False},
        {"optimizer": {"variant": "xsam", "alpha": True}},
        {"optimizer": {"variant": "sgd", "base": {"name": "sgd", "momentum": False}}},
        {"dataset": {"name": "digits", "label_noise": False}},
    ],
)
def test_boolean__is_no_number(spec: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="should not be a boolean"):
        JobSpec.model_validate(spec)


@pytest.mark.parametrize("variant", OPTIMIZERS)
def test_specification__is_read_as_it_is_stored(variant: str) -> None:
    spec = JobSpec.model_validate({"optimizer": {"variant": variant}})
    assert JobSpec.model_validate(spec.model_dump(mode="json")) == spec


def test_boolean__is_taken_where_one_is_meant() -> None:
    spec = JobSpec.model_validate(
        {
            "model": {"name": "small_cnn", "batch_norm": False},
            "optimizer": {"variant": "sam", "adaptive": True, "base": {"name": "sgd", "nesterov": True}},
        }
    )
    assert spec.model_dump()["optimizer"]["adaptive"] is True
    assert spec.model_dump()["model"]["batch_norm"] is False
