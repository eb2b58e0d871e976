"""Tasks of a team's own on the one loop: any data, loss and metrics, and the same promises as built-in jobs."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.workers.training.runs import Ran, RankPool, WishAfter, assert_equal_weights, run, spec_of, without_times
from tests.workers.training.tasks import own_code
from xsam.workers.messages import StopReason
from xsam.workers.training.errors import (
    DatasetFormatError,
    DivergenceError,
    TargetError,
    TooFewExamplesError,
    TrainingError,
)

CODE = "tests.workers.training.tasks.own_code"
ALLOWED = {"allowed_packages": ("tests",)}


def own(name: str, **fields: Any):
    options = fields.pop("options", {})
    given = {"batch_size": 20, "epochs": 3, "optimizer": {"variant": "xsam"}, **fields}
    return spec_of(task={"target": f"{CODE}:{name}", "options": options}, **given)


def test_task__trains_and_reports_every_metric_by_name(tmp_path: Path) -> None:
    ran = run(own("Rows", epochs=12), tmp_path, **ALLOWED)
    last = ran.telemetry.epochs[-1]
    assert last.eval_accuracy > 0.75
    assert last.train_accuracy is None
    assert last.eval_loss < ran.telemetry.epochs[0].eval_loss
    assert last.metrics.keys() == {
        *("f1", "seen", "margin", "other/loss", "other/accuracy", "other/margin", "other/f1", "other/seen"),
        "train/confidence",
    }
    assert (last.metrics["seen"], last.metrics["other/seen"]) == (own_code.NUM_EVAL, 5)
    assert 0.5 < last.metrics["train/confidence"] < 1
    summary = ran.outcome.summary
    assert summary.best_metric == "f1:max"
    assert summary.best_value == max(epoch.metrics["f1"] for epoch in ran.telemetry.epochs)
    assert summary.final_metrics == last.metrics
    assert len(ran.telemetry.alphas) == 12


def test_task__of_functions_fits_a_line(tmp_path: Path) -> None:
    ran = run(own("prices", batch_size=16, epochs=20, optimizer={"variant": "sam", "rho": 0.01}), tmp_path, **ALLOWED)
    (start,) = ran.telemetry.starts
    assert start.steps_per_epoch == 3
    assert ran.telemetry.epochs[-1].metrics["mae"] < 0.1
    assert ran.outcome.summary.best_metric == "mae:min"
    assert ran.outcome.summary.best_accuracy is None


def test_task__without_evaluate_measures_what_its_loss_names(tmp_path: Path) -> None:
    epoch = run(own("OnlyLoss", epochs=1, best="accuracy:max"), tmp_path, **ALLOWED).telemetry.epochs[0]
    assert 0 < epoch.train_accuracy <= 1
    assert 0 < epoch.eval_accuracy <= 1


def assert_same_run(parts: list[Ran], whole: Ran) -> None:
    assert_equal_weights(parts[-1].weights, whole.weights)
    assert without_times([e for part in parts for e in part.telemetry.epochs]) == without_times(whole.telemetry.epochs)


@pytest.mark.parametrize("options", [{}, {"stream": True}], ids=["map", "stream"])
def test_resume__is_bit_equal_with_random_augmentation_and_dropout(options: dict[str, Any], tmp_path: Path) -> None:
    spec = own("Rows", options=options, steps_per_epoch=5)
    whole = run(spec, tmp_path / "whole", **ALLOWED)
    first = run(spec, tmp_path / "parts", WishAfter(StopReason.PREEMPT, after=3), **ALLOWED)
    second = run(spec, tmp_path / "parts", WishAfter(StopReason.PAUSE, after=7), **ALLOWED)
    third = run(spec, tmp_path / "parts", **ALLOWED)
    assert [part.outcome.stopped_by for part in (first, second, third)] == ["preempt", "pause", None]
    assert_same_run([first, second, third], whole)


def test_loader_processes__change_nothing(tmp_path: Path) -> None:
    alone = run(own("Rows", epochs=2), tmp_path / "alone", **ALLOWED)
    torch.set_num_threads(1)
    spec = own("Rows", epochs=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "set_num_threads", lambda number: None)  # sums keep their order
        helped = run(spec, tmp_path / "helped", num_threads=2, **ALLOWED)
    assert_equal_weights(helped.weights, alone.weights)


def test_two_ranks__measure_every_example_once_and_resume_bit_equal(tmp_path: Path, two_ranks: RankPool) -> None:
    spec = own("Rows", options={"stream": True}, steps_per_epoch=5, resources={"num_workers": 2})
    whole = two_ranks.run(spec, tmp_path / "whole", **ALLOWED)
    first = two_ranks.run(spec, tmp_path / "parts", WishAfter(StopReason.PREEMPT, after=2), **ALLOWED)
    rest = two_ranks.run(spec, tmp_path / "parts", **ALLOWED)
    assert whole[0].telemetry.epochs[0].metrics["seen"] == own_code.NUM_EVAL
    assert whole[0].telemetry.epochs[0].metrics["other/seen"] == 5
    assert first[0].outcome.stopped_by == "preempt"
    assert_same_run([first[0], rest[0]], whole[0])


def test_on_epoch__may_unfreeze_with_one_rank_only(tmp_path: Path, two_ranks: RankPool) -> None:
    assert run(own("Unfreezes", epochs=2), tmp_path / "one", **ALLOWED).outcome.stopped_by is None
    spec = own("Unfreezes", epochs=2, resources={"num_workers": 2})
    assert "froze or unfroze" in str(two_ranks.failures(spec, tmp_path / "two", **ALLOWED)[0])


@pytest.mark.parametrize(
    ("name", "fields", "error", "message"),
    [
        ("NoLosses", {}, TargetError, "has no .NoLosses.; did you mean .NoLoss"),
        ("NoLoss", {}, TargetError, "without loss"),
        ("Rows", {"options": {"depth": 3}}, TargetError, "unexpected keyword argument 'depth'"),
        ("VectorLoss", {}, TargetError, r"shape \(20,\); it must be a scalar"),
        ("DictModelLoss", {}, TargetError, "loss.. returned a dict"),
        ("WrongBest", {}, TargetError, "best is 'f1:max', but the first epoch measured loss, accuracy"),
        ("NanLoss", {}, DivergenceError, "diverged"),
        ("OnlyLoss", {"batch_size": 101}, TooFewExamplesError, "100 examples"),
        ("ShortStream", {}, DatasetFormatError, "say steps_per_epoch"),
        ("ShortStream", {"steps_per_epoch": 9}, DatasetFormatError, "ended after 5 batches"),
    ],
)
def test_bad_task__is_told_by_name(
    name: str, fields: dict[str, Any], error: type[TrainingError], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        run(own(name, epochs=1, **fields), tmp_path, **ALLOWED)


@pytest.mark.parametrize("name", ["random", "nn", "F"])
def test_target__must_not_be_what_the_module_only_imported(name: str, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="only imported"):
        run(spec_of(task={"target": f"{CODE}:{name}"}), tmp_path, **ALLOWED)
