"""What a specification may say: defaults, round trips, and what each wrong one is refused with."""

from typing import Any

import pytest
from pydantic import ValidationError

from xsam.services.specs.job import JobSpec

GOOD: list[dict[str, Any]] = [
    {},
    {"optimizer": {"variant": "sgd"}},
    {"optimizer": {"variant": "sam", "rho": 0.05, "base": {"name": "adamw", "lr": 1e-3}}},
    {"optimizer": {"variant": "xsam", "rho": 0.1}, "resources": {"num_workers": 4, "gpus_per_worker": 1}},
    {"resources": {"num_workers": 2, "gpus_per_worker": 0.5}},
    {"dataset": {"name": "digits", "label_noise": 0.4, "train_size": 500}, "epochs": 3},
    {"schedule": {"name": "cosine", "warmup_epochs": 1}},
    {"schedule": {"name": "step", "milestones": [5, 8]}},
    {"schedule": {"name": "one_cycle", "peak_at": 0.2}, "precision": "fp16"},
    {"recipe": {"micro_batches": 8, "max_grad_norm": 1.0, "ema_decay": 0.999}, "speed": {"compile": True}},
    {"parameters": {"freeze": ["conv1.*", "layer?.*"], "no_decay": ["norms", "biases"], "no_perturb": ["norms"]}},
    {"dataset": {"name": "digits", "label_smoothing": 0.1, "mixup": 0.2, "cutmix": 1.0}},
    {"labels": {"project/a.b": "x", "k": ""}, "priority": -100, "name": "run 1"},
]

BAD: list[tuple[dict[str, Any], str]] = [
    ({"epoch": 3}, "epoch"),
    ({"epochs": 0}, "epochs"),
    ({"epochs": "many"}, "epochs"),
    ({"batch_size": 0}, "batch_size"),
    ({"batch_size": 65, "resources": {"num_workers": 2}}, "batch_size"),
    ({"batch_size": 100_000}, "batch_size"),
    ({"seed": -1}, "seed"),
    ({"seed": 2**32}, "seed"),
    ({"precision": "fp8"}, "precision"),
    ({"recipe": {"micro_batches": 3}}, "recipe.micro_batches"),
    ({"recipe": {"micro_batches": 64}, "resources": {"num_workers": 2}}, "recipe.micro_batches"),
    ({"recipe": {"max_grad_norm": 0}}, "recipe.max_grad_norm"),
    ({"recipe": {"ema_decay": 1}}, "recipe.ema_decay"),
    ({"parameters": {"no_decay": ["weights"]}}, "parameters.no_decay"),
    ({"parameters": {"freeze": ["a b"]}}, "parameters.freeze"),
    ({"speed": {"compile": "inductor"}}, "speed.compile"),
    ({"dataset": {"name": "digits", "mixup": -1}}, "dataset.digits.mixup"),
    ({"dataset": {"name": "digits", "label_smoothing": 1}}, "dataset.digits.label_smoothing"),
    ({"schedule": {"name": "one_cycle", "warmup_epochs": 1}}, "schedule.one_cycle.warmup_epochs"),
    ({"priority": 101}, "priority"),
    ({"priority": 1.5}, "priority"),
    ({"name": ""}, "name"),
    ({"name": "../etc"}, "name"),
    ({"name": "a\nb"}, "name"),
    ({"name": "x" * 101}, "name"),
    ({"labels": {"": "x"}}, "labels"),
    ({"labels": {"a b": "x"}}, "labels"),
    ({"labels": {"a": "x\ny"}}, "labels"),
    *(({"labels": {"a": f"x{one}y"}}, "labels") for one in "\x1b\x9b\u202e\u200b\u2028\u2029\udcff"),
    ({"labels": {str(n): "" for n in range(65)}}, "labels"),
    ({"resources": {"num_workers": 0}}, "resources.num_workers"),
    ({"resources": {"num_workers": 2000}}, "resources.num_workers"),
    ({"resources": {"gpus_per_worker": -1}}, "resources.gpus_per_worker"),
    ({"resources": {"gpus_per_worker": 1.5}}, "resources.gpus_per_worker"),
    ({"resources": {"gpus_per_worker": float("nan")}}, "resources.gpus_per_worker"),
    ({"resources": {"cpus_per_worker": 0}}, "resources.cpus_per_worker"),
    ({"optimizer": {"variant": "adam"}}, "optimizer"),
    ({"optimizer": {"variant": "xsam", "rho": 0}}, "optimizer.xsam.rho"),
    ({"optimizer": {"variant": "xsam", "rho": float("inf")}}, "optimizer.xsam.rho"),
    ({"optimizer": {"variant": "xsam", "rho_warmup_steps": -1}}, "optimizer.xsam.rho_warmup_steps"),
    ({"optimizer": {"variant": "wsam", "decouple": True, "scope": "local"}}, "optimizer.decouple"),
    ({"optimizer": {"variant": "gsam", "rho": 0.1, "rho_min": 0.2}}, "optimizer.rho_min"),
    ({"optimizer": {"variant": "sam", "rho_min": 0.01}}, "optimizer.sam.rho_min"),
    ({"optimizer": {"variant": "sgd", "rho": 0.1}}, "optimizer.sgd.rho"),
    ({"optimizer": {"variant": "sgd", "base": {"name": "lion"}}}, "optimizer.sgd.base"),
    ({"optimizer": {"variant": "sgd", "base": {"name": "sgd", "lr": -1}}}, "optimizer.sgd.base.sgd.lr"),
    (
        {"optimizer": {"variant": "sgd", "base": {"name": "sgd", "nesterov": True, "momentum": 0}}},
        "optimizer.base.nesterov",
    ),
    ({"model": {"name": "alexnet"}}, "model"),
    ({"model": {"name": "custom", "target": "os.system('x')"}}, "model.custom.target"),
    ({"dataset": {"name": "imagenet"}}, "dataset"),
    ({"dataset": {"name": "digits", "label_noise": 2}}, "dataset.digits.label_noise"),
    ({"dataset": {"name": "digits", "train_size": 10_000_000}}, "dataset.train_size"),
    ({"dataset": {"name": "digits", "train_size": 1400, "validation_size": 100}}, "dataset.train_size"),
    ({"dataset": {"name": "digits", "validation_size": 1438}}, "dataset.validation_size"),
    ({"dataset": {"name": "digits", "validation_size": 1400}, "batch_size": 64}, "batch_size"),
    ({"plane": {"job": "abc", "num_points": 4}}, "plane.num_points"),
    ({"secrets": ["wandb_api_key"]}, "secrets.0"),
    ({"secrets": ["HF_TOKEN", "LD_PRELOAD"]}, "secrets.1"),
    *(
        ({"secrets": [name]}, "secrets.0")
        for name in ("PATH", "PYTHONPATH", "RAY_ADDRESS", "XSAM_TOKEN", "MASTER_ADDR")
    ),
    *(({"secrets": [name]}, "secrets.0") for name in ("RANK", "CUDA_VISIBLE_DEVICES", "AWS_SECRET_ACCESS_KEY", "")),
    ({"secrets": [f"NAME_{n}" for n in range(17)]}, "secrets"),
    ({"schedule": {"name": "step", "milestones": []}}, "schedule.step.milestones"),
    ({"checkpoint": {"every_epochs": 0}}, "checkpoint.every_epochs"),
    ({"retry": {"infrastructure": -1}}, "retry.infrastructure"),
]


@pytest.mark.parametrize("document", GOOD)
def test_spec__reads_back_what_it_wrote(document: dict[str, Any]) -> None:
    spec = JobSpec.model_validate(document)
    assert JobSpec.model_validate(spec.model_dump(mode="json")) == spec
    assert JobSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(("document", "field"), BAD, ids=[f"{field}-{n}" for n, (_, field) in enumerate(BAD)])
def test_spec__refuses_and_names_the_field(document: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        JobSpec.model_validate(document)
    named = [error.get("ctx", {}).get("field") or ".".join(map(str, error["loc"])) for error in caught.value.errors()]
    assert any(name == field or name.startswith(f"{field}.") for name in named), named


def test_spec__without_secrets_is_stored_as_releases_without_them_read_it() -> None:
    assert "secrets" not in JobSpec().model_dump(mode="json")
    assert JobSpec(secrets=["HF_TOKEN"]).model_dump(mode="json")["secrets"] == ["HF_TOKEN"]


def test_reserved_name__is_refused_with_those_that_are() -> None:
    with pytest.raises(ValidationError, match=r"none of the reserved names, which are .*PATH.* and LD_\*, .*RAY_\*"):
        JobSpec.model_validate({"secrets": ["PATH"]})


def test_spec__is_never_changed_after_the_check() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        JobSpec().epochs = 3  # type: ignore[misc]


CODE = {"bundle": "sha256:" + 64 * "0"}
TASK = {"target": "acme.task:Defects"}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"task": TASK, "model": {"name": "mlp"}}, "model"),
        ({"task": TASK, "dataset": {"name": "digits"}}, "dataset"),
        ({"task": TASK, "dataset": {"name": "task", "label_noise": 0.1}}, "dataset"),
        ({"task": TASK, "dataset": {"name": "task", "mixup": 0.1}}, "dataset"),
        ({"model": {"name": "task"}}, "model.name"),
        ({"steps_per_epoch": 3}, "steps_per_epoch"),
        ({"entrypoint": "train.py"}, "entrypoint"),
        ({"entrypoint": "train.py", "code": CODE, "task": TASK}, "entrypoint"),
        ({"entrypoint": "train.py --lr {optimizer.lr}", "code": CODE}, "entrypoint.args"),
        ({"config": {"lr": 0.1}}, "config"),
    ],
)
def test_own_work__that_contradicts_itself_names_the_field(fields, field):
    with pytest.raises(ValidationError) as caught:
        JobSpec.model_validate(fields)
    assert caught.value.errors()[0]["ctx"]["field"] == field


@pytest.mark.parametrize(
    "given", ["train.py", ["train.py"], "python train.py", {"file": "train.py"}, ["python3", "train.py"]]
)
def test_entrypoint__has_short_forms(given):
    spec = JobSpec.model_validate({"code": CODE, "entrypoint": given})
    assert (spec.entrypoint.file, spec.entrypoint.function, spec.entrypoint.args) == ("train.py", None, ())
    assert JobSpec.model_validate(spec.model_dump(mode="json")) == spec


def test_entrypoint__of_a_function_is_its_file_and_arguments_are_filled_in():
    given = {"code": CODE, "entrypoint": ["acme.train:main", "--lr={optimizer.base.lr}", "{name}"], "name": "a b"}
    spec = JobSpec.model_validate(given)
    assert (spec.entrypoint.file, spec.entrypoint.function) == ("acme/train.py", "main")
    assert spec.entrypoint.filled(spec.model_dump()) == ["--lr=0.05", "a b"]


SCRIPT = {"code": CODE, "entrypoint": "train.py"}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"precision": "bf16"}, "precision"),
        ({"batch_size": 32}, "batch_size"),
        ({"recipe": {"micro_batches": 4}}, "recipe.micro_batches"),
        ({"recipe": {"max_grad_norm": 1.0}}, "recipe.max_grad_norm"),
        ({"recipe": {"ema_decay": 0.99}}, "recipe.ema_decay"),
        ({"parameters": {"freeze": ["conv*"]}}, "parameters.freeze"),
        ({"speed": {"compile": True}}, "speed.compile"),
        ({"schedule": {"name": "constant", "warmup_epochs": 1}}, "schedule.warmup_epochs"),
        ({"schedule": {"name": "step", "milestones": [3]}}, "schedule.name"),
        ({"checkpoint": {"every_steps": 5}}, "checkpoint.every_steps"),
        ({"optimizer": {"variant": "sam"}}, "optimizer.variant"),
        ({"optimizer": {"variant": "xsam", "base": {"name": "adamw"}}}, "optimizer.base.name"),
        ({"optimizer": {"variant": "xsam", "base": {"name": "sgd", "lr": 0.2}}}, "optimizer.base.lr"),
        ({"dataset": {"name": "digits", "mixup": 0.2}}, "dataset"),
    ],
)
def test_script__is_not_given_what_only_the_services_loop_reads(fields, field):
    with pytest.raises(ValidationError, match=field) as caught:
        JobSpec.model_validate(SCRIPT | fields)
    assert caught.value.errors()[0]["ctx"]["field"] == field


@pytest.mark.parametrize(
    "fields",
    [
        {"epochs": 3, "seed": 5, "best": "f1:max", "steps_per_epoch": 4, "limits": {"max_run_s": 60}},
        {"entrypoint": ["train.py", "{batch_size}", "--clip={recipe.max_grad_norm}"], "batch_size": 8}
        | {"recipe": {"max_grad_norm": 1.0}},
        {"entrypoint": ["train.py", "{optimizer}"], "optimizer": {"variant": "sam", "rho": 0.3}},
        {"entrypoint": ["train.py", "{optimizer.variant}"], "optimizer": {"variant": "gsam"}},
        {"optimizer": {"variant": "xsam"}, "precision": "fp32", "recipe": {}},
    ],
)
def test_script__is_given_what_it_hears_and_what_says_nothing_new(fields):
    spec = JobSpec.model_validate(SCRIPT | fields)
    assert JobSpec.model_validate(spec.model_dump(mode="json")) == spec
