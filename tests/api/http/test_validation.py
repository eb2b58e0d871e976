import pytest
from pydantic import ValidationError

from xsam.api.http.problems import FieldError
from xsam.api.http.validation import field_errors, shown
from xsam.services.specs.job import JobSpec
from xsam.services.specs.optimizer import OPTIMIZERS


def _errors(spec: object) -> list[FieldError]:
    with pytest.raises(ValidationError) as caught:
        JobSpec.model_validate(spec)
    return field_errors(caught.value.errors(), JobSpec)


def test_field__leaves_out_the_tags_of_unions() -> None:
    spec = {"optimizer": {"variant": "xsam", "rho": 0, "base": {"name": "adamw", "betas": [2, 0.9]}}}
    assert {error.field for error in _errors(spec)} == {"optimizer.rho", "optimizer.base.betas.0"}


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        # A name that equals a tag stays.
        ({"dataset": {"name": "digits", "digits": 1}}, "dataset.digits"),
        ({"name": "epochs", "epochs": 0}, "epochs"),
        ({"labels": {"name": "x", "x": "\n"}}, "labels.x"),
        ({"labels": {"\n": "x"}}, "labels.'\\n'"),
        ({"model": {"name": "mlp", "hidden": [1, 0]}}, "model.hidden.1"),
        ({"model": {"name": "custom", "target": "a:b", "options": {"k": {"x": float("inf")}}}}, "model.options.k"),
        ({"resources": 3}, "resources"),
        ({"optimizer": {"variant": "xsam", "alpha": True}}, "optimizer.alpha"),
    ],
)
def test_field__is_what_the_caller_wrote(spec: object, field: str) -> None:
    assert [error.field for error in _errors(spec)] == [field]


def test_plain_union__is_one_error_with_both_ways_out() -> None:
    (error,) = _errors({"optimizer": {"variant": "xsam", "alpha_every": "x"}})
    assert error.field == "optimizer.alpha_every"
    assert error.message == "must be 'epoch', or must be a valid integer"


def test_allowed__lists_choices_and_names() -> None:
    (precision,) = _errors({"precision": "fp8"})
    assert precision.allowed == ["fp32", "bf16", "fp16"]
    (variant,) = _errors({"optimizer": {"variant": "lion"}})
    assert (variant.value, variant.allowed) == ("lion", list(OPTIMIZERS))
    (unknown,) = _errors({"resources": {"gpus": 1}})
    assert unknown.allowed == [
        "cpus_per_worker",
        "gpu_kind",
        "gpus_per_worker",
        "min_gpu_memory_gb",
        "node_labels",
        "num_workers",
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, 3),
        (0.5, 0.5),
        (True, True),
        (None, None),
        (float("nan"), "nan"),
        (2**60, "1152921504606846976..."),
        ("x" * 300, "x" * 200 + "..."),
        ({"a": 1}, None),
        (b"\xff", None),
    ],
)
def test_shown__is_short_and_fits_json(value: object, expected: object) -> None:
    assert shown(value) == expected
