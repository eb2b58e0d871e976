import json
import math

import pytest
import torch

from xsam.services.metrics.records import EpochRecord
from xsam.workers.training.progress import EXPLOSION_FACTOR, EpochLosses, Progress

LIMIT = EXPLOSION_FACTOR * math.log(10)


def record_of(epoch: int, accuracy: float) -> EpochRecord:
    return EpochRecord(epoch, 5 * epoch, 1.0, 0.5, 0.1 + 0.2, accuracy, 0.1, 1.5, 10.0, 10, 21)


def losses_of(*values: float) -> EpochLosses:
    losses = EpochLosses(8, 10, "cpu")
    for value in values:
        losses.record(torch.tensor(value), torch.eye(10)[:3], torch.tensor([0, 1, 5]))
    return losses


def test_progress__survives_json_exactly() -> None:
    progress, copy = Progress(), Progress()
    progress.take_step(2)
    progress.finish_epoch(record_of(1, 1 / 3))
    copy.load_values(json.loads(json.dumps(progress.values())))
    assert copy == progress


def test_best_epoch__is_the_earliest_of_equals() -> None:
    progress = Progress()
    marks = [progress.finish_epoch(record_of(epoch, a)) for epoch, a in enumerate((0.0, 0.5, 0.4, 0.5), start=1)]
    assert marks == [True, True, False, False]
    assert (progress.best_epoch, progress.best_accuracy, progress.final_accuracy) == (2, 0.5, 0.5)


def test_totals__are_sums_over_the_steps() -> None:
    loss_sum, num_correct = losses_of(0.5, 1.5, 2.5).totals()
    assert (loss_sum.item(), num_correct.item()) == (4.5, 6)
    assert loss_sum.dtype == torch.float64


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((1.0, 2.0), 0),
        ((1.0, math.nan, 2.0, math.inf), 2),
        ((math.inf,), 1),
        ((-math.inf,), 1),
        ((1.0, 1.0, LIMIT * 1.01), 3),
        ((LIMIT * 0.99,), 0),
        ((-5.0,), 0),
    ],
)
def test_first_bad__is_the_first_that_is_not_finite_or_exploded(values: tuple[float, ...], expected: int) -> None:
    assert losses_of(*values).first_bad() == expected


def test_first_bad__looks_at_each_step_once() -> None:
    losses = losses_of(1.0, math.nan)
    assert losses.first_bad() == 2
    assert losses.first_bad() == 0


def test_values__carry_a_started_epoch_over() -> None:
    losses, resumed = losses_of(1.0, 2.0), EpochLosses(8, 10, "cpu")
    resumed.load_values(losses.values())
    resumed.restart(2)
    for part in (losses, resumed):
        part.record(torch.tensor(4.0), torch.eye(10)[:3], torch.tensor([0, 1, 5]))
    assert [t.item() for t in resumed.totals()] == [t.item() for t in losses.totals()] == [7.0, 6]
    assert resumed.mean_since_report() == 4.0


def test_restart__forgets_the_epoch_before_as_the_steps_are_overwritten() -> None:
    losses = losses_of(*[9.0] * 8)
    losses.restart(0)
    for _ in range(8):
        losses.record(torch.tensor(1.0), torch.eye(10)[:3], torch.tensor([9, 9, 9]))
    assert [total.item() for total in losses.totals()] == [8.0, 0]
