import json
import math
from dataclasses import replace

import pytest
import torch

from xsam.services.metrics.records import EpochRecord
from xsam.workers.sdk.sums import Sum
from xsam.workers.training.errors import TargetError
from xsam.workers.training.progress import EpochLosses, Progress
from xsam.workers.training.tasks.goal import Goal

LIMIT = 2000.0
GOAL = Goal.parse("accuracy:max")


def record_of(epoch: int, accuracy: float) -> EpochRecord:
    return EpochRecord(epoch, 5 * epoch, 1.0, 0.5, 0.1 + 0.2, accuracy, 0.1, 1.5, 10.0, 10, 21)


def losses_of(*values: float) -> EpochLosses:
    losses = EpochLosses(8, "cpu", limit=LIMIT)
    for value in values:
        losses.record(torch.tensor(value), {"accuracy": lambda: Sum(torch.tensor(2), 3)})
    return losses


def test_progress__survives_json_exactly() -> None:
    progress, copy = Progress(), Progress()
    progress.take_step(2)
    progress.finish_epoch(record_of(1, 1 / 3), GOAL)
    copy.load_values(json.loads(json.dumps(progress.values())))
    assert copy == progress


def test_best_epoch__is_the_earliest_of_equals() -> None:
    progress = Progress()
    marks = [progress.finish_epoch(record_of(epoch, a), GOAL) for epoch, a in enumerate((0.0, 0.5, 0.4, 0.5), start=1)]
    assert marks == [True, True, False, False]
    assert (progress.best_epoch, progress.best_accuracy, progress.final_accuracy) == (2, 0.5, 0.5)


def test_totals__are_sums_over_the_steps() -> None:
    losses = losses_of(0.5, 1.5, 2.5)
    assert losses.total().item() == 4.5
    assert losses.total().dtype == torch.float64
    assert {name: value.tolist() for name, value in losses.sums().items()} == {"accuracy": [6, 9]}


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
    losses, resumed = losses_of(1.0, 2.0), EpochLosses(8, "cpu", limit=LIMIT)
    resumed.load_values(losses.values())
    resumed.restart(2)
    for part in (losses, resumed):
        part.record(torch.tensor(4.0), {"accuracy": Sum(2, 3)})
    assert resumed.total().item() == losses.total().item() == 7.0
    assert resumed.sums()["accuracy"].tolist() == losses.sums()["accuracy"].tolist() == [6, 9]
    assert resumed.mean_since_report() == 4.0


def test_restart__forgets_the_epoch_before_as_the_steps_are_overwritten() -> None:
    losses = losses_of(*[9.0] * 8)
    losses.restart(0)
    for _ in range(8):
        losses.record(torch.tensor(1.0), {"accuracy": Sum(0, 3)})
    assert (losses.total().item(), losses.sums()["accuracy"].tolist()) == (8.0, [0, 24])


def test_record__refuses_other_names_than_before() -> None:
    losses = losses_of(1.0)
    with pytest.raises(TargetError, match="named f1 in this step, but accuracy"):
        losses.record(torch.tensor(1.0), {"f1": 0.5})


def test_goal__of_less_is_better_keeps_the_least() -> None:
    progress, goal = Progress(), Goal.parse("rmse:min")
    records = [replace(record_of(n, 0.5), metrics=m) for n, m in enumerate(({"rmse": 2.0}, {"rmse": 1.0}, {}), 1)]
    assert [progress.finish_epoch(record, goal) for record in records] == [True, True, False]
    summary = progress.summary(goal, None)
    assert (summary.best_epoch, summary.best_metric, summary.best_value) == (2, "rmse:min", 1.0)
