"""What a run does besides resuming: learning, reporting, stopping, failing by name."""

import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.workers.training.dataset_files import write_image_folder
from tests.workers.training.runs import (
    RankPool,
    WishAfter,
    assert_equal_weights,
    context_in,
    run,
    spec_of,
    without_times,
)
from xsam.services.specs.dataset import Digits
from xsam.services.specs.job import JobSpec
from xsam.workers.messages import StartedRecord, StopReason
from xsam.workers.training import telemetry as telemetry_module
from xsam.workers.training.data.sources import prepare_data
from xsam.workers.training.errors import DivergenceError, OutOfMemoryError, TooFewExamplesError
from xsam.workers.training.ranks import Ranks

VARIANTS = ("sgd", "sam", "xsam")
PER_EPOCH = 5


def small_spec(**fields: Any) -> JobSpec:
    return spec_of(
        **{
            "model": {"name": "mlp", "hidden": [16]},
            "dataset": {"name": "digits", "train_size": 240},
            "optimizer": {"variant": "xsam"},
            "batch_size": 48,
            "epochs": 2,
            **fields,
        }
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_run__learns_the_digits(variant: str, tmp_path: Path) -> None:
    spec = spec_of(optimizer={"variant": variant}, epochs=4, batch_size=32)
    ran = run(spec, tmp_path)
    assert ran.outcome.stopped_by is None
    assert ran.outcome.summary.final_accuracy > 0.85
    assert ran.telemetry.epochs[-1].train_loss < ran.telemetry.epochs[0].train_loss


@pytest.mark.parametrize("variant", VARIANTS)
def test_run__is_the_same_again(variant: str, tmp_path: Path) -> None:
    spec = small_spec(optimizer={"variant": variant}, dataset={"name": "digits", "augment": ["crop", "cutout"]})
    first, second = run(spec, tmp_path / "1"), run(spec, tmp_path / "2")
    assert_equal_weights(first.weights, second.weights)
    assert without_times(first.telemetry.epochs) == without_times(second.telemetry.epochs)


def test_run__reports_in_order_and_counts_passes(tmp_path: Path) -> None:
    spec = small_spec(optimizer={"variant": "xsam", "ascent_steps": 2})
    ran = run(spec, tmp_path)
    seen, summary = ran.telemetry, ran.outcome.summary
    assert seen.starts == [StartedRecord(PER_EPOCH, first_step=1, first_epoch=1, num_parameters=65 * 16 + 17 * 10)]
    assert len(seen.first_steps) == 1
    assert [(record.epoch, record.step) for record in seen.epochs] == [(1, 5), (2, 10)]
    assert [(record.epoch, record.step) for record in seen.alphas] == [(1, 1), (2, 6)]
    assert [record.grad_evals for record in seen.epochs] == [15, 30]
    assert [record.probe_forwards for record in seen.epochs] == [21, 42]
    assert (summary.grad_evals, summary.probe_forwards, summary.step, summary.epochs) == (30, 42, 10, 2)
    assert summary.mean_alpha == pytest.approx(sum(record.alpha for record in seen.alphas) / 2)
    accuracies = [record.eval_accuracy for record in seen.epochs]
    assert (summary.best_accuracy, summary.final_accuracy) == (max(accuracies), accuracies[-1])
    assert summary.train_s == pytest.approx(sum(record.epoch_s for record in seen.epochs))


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [({"variant": "xsam", "alpha": 0.6}, 0.6), ({"variant": "sam"}, None), ({"variant": "sgd"}, None)],
)
def test_mean_alpha__is_the_fixed_one_or_none(optimizer: dict[str, Any], expected: float, tmp_path: Path) -> None:
    ran = run(small_spec(optimizer=optimizer, epochs=1), tmp_path)
    assert ran.outcome.summary.mean_alpha == expected
    assert ran.telemetry.alphas == []


def test_search__looks_at_the_batches_that_come_next(tmp_path: Path) -> None:
    # 240 examples in batches of 48 are 5 steps an epoch: of the last ones there are fewer left.
    fields = {"dataset": {"name": "digits", "train_size": 240}, "batch_size": 48, "epochs": 1}
    fields["model"] = {"name": "small_cnn", "batch_norm": False}  # which would see the micro-batches one by one
    own = run(spec_of(**fields, optimizer={"variant": "xsam", "alpha_every": 1}), tmp_path / "own")
    wide = run(spec_of(**fields, optimizer={"variant": "xsam", "alpha_every": 1, "alpha_batches": 3}), tmp_path / "w")
    assert own.outcome.summary.probe_forwards == 21 * 5
    assert wide.outcome.summary.probe_forwards == 21 * (3 + 3 + 3 + 2 + 1)
    assert own.telemetry.alphas[0].losses != wide.telemetry.alphas[0].losses
    assert own.telemetry.epochs[0].step == wide.telemetry.epochs[0].step == 5
    micro = {**fields, "recipe": {"micro_batches": 4}}
    cut = run(spec_of(**micro, optimizer={"variant": "xsam", "alpha_batches": 3}), tmp_path / "cut")
    assert cut.telemetry.alphas[0].losses == pytest.approx(wide.telemetry.alphas[0].losses, rel=1e-5)


def test_first_epoch__has_the_loss_and_accuracy_of_the_forward_passes(tmp_path: Path) -> None:
    # With a rate of almost zero the weights stay, so the means over the epoch can be computed afterwards.
    optimizer = {"variant": "sgd", "base": {"name": "sgd", "lr": 1e-30}}
    ran = run(small_spec(optimizer=optimizer, epochs=1), tmp_path)
    (record,) = ran.telemetry.epochs
    data = _digits(small_spec().dataset.train_size)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    model.load_state_dict(ran.weights)
    for (images, labels), loss, accuracy in (
        (data[0], record.train_loss, record.train_accuracy),
        (data[1], record.eval_loss, record.eval_accuracy),
    ):
        logits = model(images).detach()
        assert loss == pytest.approx(float(nn.functional.cross_entropy(logits, labels)), rel=1e-5)
        assert accuracy == pytest.approx(float((logits.argmax(1) == labels).float().mean()), rel=1e-6)


def _digits(train_size: int | None) -> list[tuple[torch.Tensor, torch.Tensor]]:
    context = context_in(Path("unused"))
    data = prepare_data(Digits(train_size=train_size), context, Ranks(context), seed=0)
    scale, shift = data.normalisation.factors("cpu")
    parts = []
    for split in (data.train, data.evaluation):
        (raw,) = split.images.batches([torch.arange(len(split.labels))])
        parts.append((raw * scale + shift, split.labels))
    return parts


def test_schedule__sets_the_rate_of_every_step(tmp_path: Path) -> None:
    schedule = {"name": "cosine", "warmup_epochs": 1}
    ran = run(small_spec(schedule=schedule, epochs=3), tmp_path)
    base = 0.05
    # The last steps of the epochs start at 4/5 of them.
    expected = [
        base * 0.8,
        base * 0.5 * (1 + math.cos(math.pi * 0.8 / 2)),
        base * 0.5 * (1 + math.cos(math.pi * 1.8 / 2)),
    ]
    assert [record.lr for record in ran.telemetry.epochs] == pytest.approx(expected)


def test_bf16__computes_in_it_and_keeps_weights_in_fp32(tmp_path: Path) -> None:
    full, half = (run(small_spec(precision=name, epochs=4), tmp_path / name) for name in ("fp32", "bf16"))
    assert {tensor.dtype for tensor in half.weights.values()} == {torch.float32}
    full_loss, half_loss = (ran.telemetry.epochs[0].train_loss for ran in (full, half))
    assert half_loss != full_loss
    assert half_loss == pytest.approx(full_loss, rel=0.05)


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_ranks__train_like_one_with_the_whole_batch(variant: str, tmp_path: Path, two_ranks: RankPool) -> None:
    fields: dict[str, Any] = {
        "optimizer": {"variant": variant},
        "dataset": {"name": "digits", "train_size": 240, "label_noise": 0.4, "augment": ["crop", "cutout"]},
        "epochs": 3,
    }
    one = run(small_spec(**fields), tmp_path / "one")
    first, second = two_ranks.run(small_spec(**fields, resources={"num_workers": 2}), tmp_path / "two")
    assert first.outcome == second.outcome
    assert second.telemetry.starts == []
    for actual, expected in zip(first.telemetry.epochs, one.telemetry.epochs, strict=True):
        assert actual.train_loss == pytest.approx(expected.train_loss, rel=1e-4)
        assert actual.eval_loss == pytest.approx(expected.eval_loss, rel=1e-4)
        assert actual.train_accuracy == pytest.approx(expected.train_accuracy, abs=0.01)
        assert (actual.grad_evals, actual.probe_forwards) == (expected.grad_evals, expected.probe_forwards)
    assert [a.alpha for a in first.telemetry.alphas] == [a.alpha for a in one.telemetry.alphas]
    for name, tensor in one.weights.items():
        torch.testing.assert_close(first.weights[name], tensor, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("reason", list(StopReason))
def test_stop__comes_at_the_next_step_saves_and_keeps_its_reason(reason: StopReason, tmp_path: Path) -> None:
    ran = run(small_spec(), tmp_path, WishAfter(reason, after=3))
    assert (ran.outcome.stopped_by, ran.outcome.summary.step, ran.outcome.summary.epochs) == (reason, 3, 0)
    assert [record.step for record in ran.telemetry.checkpoints] == [3]


def test_wish__at_an_epochs_last_step_ends_the_epoch_first(tmp_path: Path) -> None:
    ran = run(small_spec(), tmp_path, WishAfter(StopReason.PAUSE, after=PER_EPOCH))
    assert (ran.outcome.stopped_by, ran.outcome.summary.epochs) == ("pause", 1)
    assert [(record.epoch, record.step) for record in ran.telemetry.checkpoints] == [(1, 5)]


@pytest.mark.parametrize("reason", [StopReason.CANCEL, StopReason.EARLY])
def test_final_stop__while_evaluating_stops_there(reason: StopReason, tmp_path: Path) -> None:
    ran = run(small_spec(), tmp_path, WishAfter(reason, after=PER_EPOCH + 1))
    assert (ran.outcome.stopped_by, ran.outcome.summary.step, ran.outcome.summary.epochs) == (reason, 5, 0)
    assert ran.telemetry.epochs == ran.telemetry.checkpoints == []


def test_cancel__reaches_two_ranks_within_three_seconds(tmp_path: Path, two_ranks: RankPool) -> None:
    spec = small_spec(epochs=100_000, resources={"num_workers": 2}, checkpoint={"every_epochs": 100_000})
    first, second = two_ranks.run(spec, tmp_path, _CancelAfter(wish_s=1.0))
    assert first.outcome == second.outcome
    assert first.outcome.stopped_by == "cancel"
    assert 0.5 < first.outcome.summary.train_s < 1.0 + 3.0


class _CancelAfter(WishAfter):
    """Wishes so many seconds after it was first asked, which is after the first step."""

    def __init__(self, wish_s: float) -> None:
        super().__init__()
        self._wish_s = wish_s
        self._first_asked_at: float | None = None

    def stop_reason(self) -> StopReason | None:
        if self._first_asked_at is None:
            self._first_asked_at = time.monotonic()
        return StopReason.CANCEL if time.monotonic() - self._first_asked_at > self._wish_s else None


def test_progress__is_reported_at_most_twice_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = run(small_spec(epochs=20), tmp_path / "throttled")
    assert len(ran.telemetry.progress_reports) <= 1 + 2 * (ran.outcome.summary.train_s + 1)
    monkeypatch.setattr(telemetry_module, "PROGRESS_INTERVAL_S", 0.0)
    every = run(small_spec(), tmp_path / "every")
    assert [(report.epoch, report.step) for report in every.telemetry.progress_reports] == [
        (1 + (step - 1) // PER_EPOCH, step) for step in range(1, 11)
    ]
    losses = [report.loss for report in every.telemetry.progress_reports]
    assert sum(losses[:PER_EPOCH]) / PER_EPOCH == pytest.approx(every.telemetry.epochs[0].train_loss)


@pytest.mark.parametrize("variant", VARIANTS)
def test_divergence__is_named_with_epoch_and_step(variant: str, tmp_path: Path) -> None:
    base = {"name": "sgd", "lr": 100.0, "momentum": 0.99}
    with pytest.raises(DivergenceError, match=r"diverged in epoch \d+, step \d+"):
        run(small_spec(optimizer={"variant": variant, "base": base}, epochs=200), tmp_path)


def test_divergence__leaves_no_checkpoint_of_the_diverged_state(tmp_path: Path) -> None:
    spec = small_spec(
        optimizer={"variant": "sgd", "base": {"name": "sgd", "lr": 100.0, "momentum": 0.99}},
        epochs=200,
        checkpoint={"every_epochs": 1, "every_steps": 1, "keep_last": 100},
    )
    with pytest.raises(DivergenceError) as caught:
        run(spec, tmp_path)
    bad_step = int(str(caught.value).split("step ")[1].split(":")[0])
    steps = [int(path.name.removeprefix("step-")) for path in (tmp_path / "checkpoints").iterdir()]
    assert max(steps) == bad_step - 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_divergence__is_raised_on_every_rank(variant: str, tmp_path: Path, two_ranks: RankPool) -> None:
    spec = small_spec(
        optimizer={"variant": variant, "base": {"name": "sgd", "lr": 100.0, "momentum": 0.99}},
        epochs=200,
        resources={"num_workers": 2},
    )
    errors = two_ranks.failures(spec, tmp_path)
    assert [type(error) for error in errors] == [DivergenceError, DivergenceError]


def test_divergence__seen_only_in_evaluation_is_named(tmp_path: Path) -> None:
    model = {"name": "custom", "target": f"{__name__}:model_that_fails_evaluation"}
    with pytest.raises(DivergenceError, match="evaluation after epoch 1: the loss is nan"):
        run(small_spec(model=model), tmp_path, allowed_packages=("tests",))


class _NanInEvaluation(nn.Linear):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images.flatten(1)) * (1.0 if self.training else math.nan)


def model_that_fails_evaluation(*, num_classes: int, channels: int, image_size: int) -> nn.Module:
    """What a job names as its target."""
    return _NanInEvaluation(channels * image_size**2, num_classes)


def test_out_of_memory__is_named_with_what_to_make_smaller(tmp_path: Path) -> None:
    model = {"name": "custom", "target": f"{__name__}:greedy_model"}
    with pytest.raises(OutOfMemoryError, match=r"out of memory on cpu in epoch 1, step 1: .* smaller batch_size"):
        run(small_spec(model=model), tmp_path, allowed_packages=("tests",))


class _Greedy(nn.Linear):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        torch.empty(2**50)
        return super().forward(images.flatten(1))


def greedy_model(*, num_classes: int, channels: int, image_size: int) -> nn.Module:
    """What a job names as its target: a network that asks for a petabyte."""
    return _Greedy(channels * image_size**2, num_classes)


def test_exception_of_the_teams_own_code__comes_out_as_it_is(tmp_path: Path) -> None:
    model = {"name": "custom", "target": f"{__name__}:broken_model"}
    with pytest.raises(ZeroDivisionError):
        run(small_spec(model=model), tmp_path, allowed_packages=("tests",))


class _Broken(nn.Linear):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images.flatten(1)) / (1 // 0)


def broken_model(*, num_classes: int, channels: int, image_size: int) -> nn.Module:
    """What a job names as its target: a network that can't run."""
    return _Broken(channels * image_size**2, num_classes)


def test_batch_larger_than_the_dataset__is_refused(tmp_path: Path) -> None:
    spec = small_spec(dataset={"name": "custom", "target": f"{__name__}:tiny_data"})
    with pytest.raises(TooFewExamplesError, match="batch_size is 48, but dataset custom has 3 training examples"):
        run(spec, tmp_path, allowed_packages=("tests",))


def tiny_data(root: Path | None) -> tuple[list[Any], list[Any]]:
    """What a job names as its target: three examples."""
    examples = [(torch.zeros(1, 8, 8), label) for label in range(3)]
    return examples, examples


def test_run__on_an_image_folder_resumes(tmp_path: Path) -> None:
    write_image_folder(tmp_path / "data" / "pets", per_class=8)
    spec = small_spec(
        model={"name": "small_cnn", "width": 4},
        dataset={"name": "image_folder", "folder": "pets", "image_size": 16, "augment": ["crop", "flip"]},
        batch_size=4,
    )
    options = {"dataset_root": tmp_path / "data"}
    whole = run(spec, tmp_path / "whole", **options)
    run(spec, tmp_path / "parts", WishAfter(StopReason.PREEMPT, after=2), **options)
    rest = run(spec, tmp_path / "parts", **options)
    assert_equal_weights(rest.weights, whole.weights)


def test_thread_count__is_the_contexts(tmp_path: Path) -> None:
    run(small_spec(epochs=1), tmp_path, num_threads=2)
    assert torch.get_num_threads() == 2


def test_held_out_examples__are_evaluated_beside_the_test_set(tmp_path: Path) -> None:
    ran = run(small_spec(dataset={"name": "digits", "train_size": 240, "validation_size": 50}), tmp_path)
    without = run(small_spec(), tmp_path / "without")
    for epoch in ran.telemetry.epochs:
        assert 0 < epoch.metrics["validation/accuracy"] <= 1
        assert epoch.metrics["validation/loss"] > 0
        assert epoch.value("validation/accuracy") == epoch.metrics["validation/accuracy"]
    assert all(not epoch.metrics for epoch in without.telemetry.epochs)
