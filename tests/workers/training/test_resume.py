"""A run that was interrupted ends like one that was not, bit for bit."""

from pathlib import Path

import pytest

from tests.workers.training.runs import Ran, RankPool, WishAfter, assert_equal_weights, run, spec_of, without_times
from xsam.workers.messages import StopReason

OPTIMIZERS = {
    "sgd": {"variant": "sgd"},
    "sgd_adamw": {"variant": "sgd", "base": {"name": "adamw"}},
    "sam": {"variant": "sam", "ascent_steps": 2},
    "sam_local": {"variant": "sam", "scope": "local"},
    "xsam": {"variant": "xsam", "rho_warmup_steps": 12},
    "xsam_on_3_batches": {"variant": "xsam", "alpha_every": 2, "alpha_batches": 3},
    "xsam_every_3": {"variant": "xsam", "alpha_every": 3, "base": {"name": "adam"}},
}
# 240 examples in batches of 48 are 5 steps an epoch.
STEPS_PER_EPOCH = 5
BASE = {
    "model": {"name": "small_cnn", "width": 4},
    "dataset": {"name": "digits", "train_size": 240, "label_noise": 0.3, "augment": ["crop", "flip", "cutout"]},
    "schedule": {"name": "cosine", "warmup_epochs": 0.5},
    "batch_size": 48,
    "epochs": 3,
}


def joined_alphas(parts: list[Ran]) -> list[object]:
    """Alpha records by step; one that is reported again must be equal."""
    by_step = {}
    for record in (record for part in parts for record in part.telemetry.alphas):
        assert by_step.setdefault(record.step, record) == record
    return [by_step[step] for step in sorted(by_step)]


def assert_same_run(parts: list[Ran], whole: Ran) -> None:
    assert_equal_weights(parts[-1].weights, whole.weights)
    epochs = [record for part in parts for record in part.telemetry.epochs]
    assert without_times(epochs) == without_times(whole.telemetry.epochs)
    assert joined_alphas(parts) == joined_alphas([whole])
    actual, expected = parts[-1].outcome.summary, whole.outcome.summary
    for name in expected.__slots__:
        if name not in ("train_s", "data_wait_s"):
            assert getattr(actual, name) == getattr(expected, name), name


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_resume__ends_like_an_uninterrupted_run(optimizer: str, tmp_path: Path) -> None:
    spec = spec_of(**BASE, optimizer=OPTIMIZERS[optimizer])
    whole = run(spec, tmp_path / "whole")
    first = run(spec, tmp_path / "parts", WishAfter(StopReason.PREEMPT, after=2))
    second = run(spec, tmp_path / "parts", WishAfter(StopReason.PAUSE, after=6))
    third = run(spec, tmp_path / "parts")
    assert (first.outcome.stopped_by, first.outcome.summary.step) == ("preempt", 2)
    assert (second.outcome.stopped_by, second.telemetry.starts[0].first_step) == ("pause", 3)
    # Three steps, one evaluation batch and two steps of the next epoch.
    assert second.outcome.summary.step == 2 + 3 + 2
    assert third.outcome.stopped_by is None
    assert_same_run([first, second, third], whole)


@pytest.mark.parametrize("optimizer", ["sgd", "sam_local", "xsam"])
def test_resume__two_ranks_end_like_an_uninterrupted_run(optimizer: str, tmp_path: Path, two_ranks: RankPool) -> None:
    spec = spec_of(**BASE, optimizer=OPTIMIZERS[optimizer], resources={"num_workers": 2})
    whole = two_ranks.run(spec, tmp_path / "whole")
    first = two_ranks.run(spec, tmp_path / "parts", WishAfter(StopReason.PREEMPT, after=2))
    rest = two_ranks.run(spec, tmp_path / "parts")
    stopped_at = first[0].outcome.summary.step
    assert first[0].outcome.stopped_by == first[1].outcome.stopped_by == "preempt"
    assert stopped_at == first[1].outcome.summary.step
    assert stopped_at % STEPS_PER_EPOCH != 0
    assert_same_run([first[0], rest[0]], whole[0])
