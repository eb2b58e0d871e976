"""What a check of a job's own code tells before the job is queued."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.workers.training.runs import context_in
from xsam.services.specs.job import JobSpec
from xsam.workers.training.check import Checked, check

CODE = "tests.workers.training.tasks.own_code"


def checked(name: str, folder: Path, **fields: Any) -> Checked:
    spec = JobSpec.model_validate({"task": {"target": f"{CODE}:{name}"}, "batch_size": 20, **fields})
    return check(spec, context_in(folder, allowed_packages=("tests",)))


def script(folder: Path, text: str, entrypoint: str = "train.py") -> Checked:
    (folder / "train.py").write_text(text)
    spec = JobSpec.model_validate({"code": {"bundle": "sha256:" + 64 * "0"}, "entrypoint": entrypoint})
    return check(spec, replace(context_in(folder), code_dir=folder))


def test_check__tells_size_batch_and_metrics(tmp_path: Path) -> None:
    found = checked("Rows", tmp_path, resources={"num_workers": 2})
    assert found.error is None
    assert found.num_parameters == found.num_trainable == 6 * 8 + 8 + 8 * 2 + 2
    assert found.steps_per_epoch == 5
    assert found.batch == "{x: float32[10, 6], y: int64[10]}"
    assert {"loss", "accuracy", "f1", "margin", "other/f1", "train/confidence"} <= set(found.metrics)
    assert found.best == "f1:max"
    assert found.loss is not None
    assert not (tmp_path / "checkpoints").exists()


def test_check__takes_the_step_that_the_job_says_but_compiles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda model: pytest.fail("compiling takes longer than a check may"))
    recipe = {"micro_batches": 2, "max_grad_norm": 1.0, "ema_decay": 0.9}
    found = checked("Rows", tmp_path, recipe=recipe, speed={"compile": True}, precision="bf16")
    assert found.error is None
    assert "train/confidence" in found.metrics
    frozen = checked("Rows", tmp_path, recipe={"micro_batches": 4}, batch_size=20, parameters={"freeze": ["9.*"]})
    assert "fits no parameter" in str(frozen.error)


def test_check__looks_at_data_named_here_as_well(tmp_path: Path) -> None:
    found = check(JobSpec(), context_in(tmp_path))
    assert (found.error, found.metrics) == (None, ["accuracy", "loss", "train/accuracy"])


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("Missing", {}, "has no 'Missing'"),
        ("VectorLoss", {}, "must be a scalar"),
        ("NanLoss", {}, "NaN or infinite"),
        ("WrongBest", {}, "best is 'f1:max', but evaluation measures accuracy, loss"),
        ("Rows", {"task": {"target": f"{CODE}:Rows", "options": {"deep": 1}}}, "deep"),
        ("OnlyLoss", {"batch_size": 4000}, "batch_size"),
    ],
)
def test_check__of_what_can_not_train_says_why(name: str, fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    assert message in (checked(name, tmp_path, **fields).error or "")


def test_traceback__is_cut_to_the_jobs_own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "acme_broken").mkdir()
    (tmp_path / "acme_broken" / "__init__.py").write_text(
        "from tests.workers.training.tasks.own_code import OnlyLoss\n"
        "class Broken(OnlyLoss):\n"
        "    def loss(self, model, batch):\n"
        "        return model(batch['x'])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    code = {"bundle": "sha256:" + 64 * "0"}
    spec = JobSpec.model_validate({"code": code, "task": {"target": "acme_broken:Broken"}, "batch_size": 20})
    found = check(spec, replace(context_in(tmp_path / "run"), code_dir=tmp_path))
    assert found.error == "TypeError: list indices must be integers or slices, not str"
    assert found.traceback is not None
    assert found.traceback.startswith('  File "acme_broken/__init__.py", line 4, in loss\n')
    assert "xsam" not in found.traceback


@pytest.mark.parametrize(
    ("text", "entrypoint", "message"),
    [
        ("import json\nprint(json)\n", "train.py", None),
        ("def main(): ...\n", "train:main", None),
        ("def main(): ...\n", "train:run", "no function 'run'"),
        ("import acme_gone.deep\n", "train.py", "imports acme_gone.deep"),
        ("def f(:\n", "train.py", "SyntaxError"),
        ("", "other.py", "no such file"),
    ],
)
def test_script__is_read_but_not_run(text: str, entrypoint: str, message: str | None, tmp_path: Path) -> None:
    error = script(tmp_path, text, entrypoint).error
    assert error is None if message is None else message in (error or "")
