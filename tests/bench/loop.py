"""The loop with a user's task against a bare loop with the same optimizer, and what its options gain.

`python -m tests.bench.loop [--rounds N] [--device cuda:0]`: both take turns, an epoch each; the medians are compared.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.bench.bare_loop import NoWish
from tests.bench.core_timing import table
from tests.bench.loop_tasks import Measured
from xsam.services.metrics.records import EpochRecord
from xsam.services.specs.job import JobSpec
from xsam.workers.messages import RankContext, Report
from xsam.workers.training.loop import run_training
from xsam.workers.training.optimizers import build_optimizer
from xsam_core import XSAM

CASES = {"mlp": (64, 200), "transformer": (32, 60), "resnet18": (32, 8)}
"""Batch size and steps of an epoch."""
TARGET = 1.03
OPTIONS: dict[str, dict[str, Any]] = {
    "4 micro-batches": {"recipe": {"micro_batches": 4}},
    "bf16": {"precision": "bf16"},
    "bf16, channels last": {"precision": "bf16", "speed": {"channels_last": True}},
    "compile": {"speed": {"compile": True}},
}


class Pace:
    """Telemetry that keeps each epoch's seconds of training."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def report(self, report: Report) -> None:
        """Take a report."""
        if isinstance(report, EpochRecord):
            self.rates.append(report.samples_per_s)


def job_of(case: str, **options: Any) -> JobSpec:
    """Return two epochs of a case, of which the first warms up."""
    batch_size, num_steps = CASES[case]
    task = {"target": "tests.bench.loop_tasks:Measured"}
    fields = {"case": case, "num_examples": batch_size * num_steps}
    given = {
        "task": {**task, "options": fields},
        "batch_size": batch_size,
        "epochs": 2,
        "checkpoint": {"every_epochs": 2},
    }
    return JobSpec.model_validate(given | options)


def loop_seconds(job: JobSpec, device: str) -> float:
    """Return the seconds of a step in the service's loop."""
    pace = Pace()
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Path(folder) / "job" / "checkpoints"
        context = RankContext(0, 1, device, None, checkpoints, allowed_packages=("tests",))
        run_training(job, context, pace, NoWish())
    return job.batch_size / pace.rates[-1]


def bare_seconds(case: str, job: JobSpec, device: str) -> float:
    """Return the seconds of a step in the shortest loop that trains the same."""
    task = Measured(case, job.task.options["num_examples"])  # type: ignore[union-attr,arg-type]
    model: nn.Module = task.model().to(device)
    optimizer = build_optimizer(job.optimizer, model)
    assert isinstance(optimizer, XSAM)
    x, y = task.train_data()
    size, seconds = job.batch_size, 0.0
    for _ in range(2):
        started_at = time.perf_counter()
        total = torch.zeros((), device=device)
        order = torch.randperm(len(x))
        for step in range(len(x) // size):
            own = order[step * size : (step + 1) * size]
            batch = x[own].to(device), y[own].to(device)
            total += optimizer.step(lambda batch=batch: task.loss(model, batch), search_alpha=step == 0)  # type: ignore[misc]
        total.item()
        seconds = (time.perf_counter() - started_at) / (len(x) // size)
    return seconds


def compared(first: Any, second: Any, rounds: int) -> tuple[float, float, float]:
    """Return the median seconds of both, taken in turns, and the median of their ratio, a turn each."""
    pairs = [(first(), second()) if index % 2 else (second(), first())[::-1] for index in range(rounds)]
    ours, theirs = zip(*pairs, strict=True)
    ratio = statistics.median(one / other for one, other in pairs)
    return statistics.median(ours), statistics.median(theirs), ratio


def main() -> None:
    """Measure and print."""
    given = argparse.ArgumentParser()
    given.add_argument("--rounds", type=int, default=7)
    given.add_argument("--device", default="cpu")
    given.add_argument("--only", choices=CASES)
    options = given.parse_args()
    torch.set_num_threads(1)
    rows: list[tuple[object, ...]] = []
    for case in [options.only] if options.only else CASES:
        job = job_of(case)
        ours, bare, ratio = compared(
            lambda job=job: loop_seconds(job, options.device),
            lambda case=case, job=job: bare_seconds(case, job, options.device),
            options.rounds,
        )
        rows.append((f"{case}, batch {job.batch_size}", 1000 * bare, 1000 * ours, ratio, TARGET))
    table("A step in the loop / in a bare loop", ("case", "bare, ms", "loop, ms", "ratio", "target"), rows)
    case = options.only or ("transformer" if options.device == "cpu" else "resnet18")
    gains: list[tuple[object, ...]] = []
    for name, fields in OPTIONS.items():
        *_, ratio = compared(
            lambda fields=fields: loop_seconds(job_of(case, **fields), options.device),
            lambda: loop_seconds(job_of(case), options.device),
            max(1, options.rounds // 2),
        )
        gains.append((name, ratio))
    table(f"Time of a step with an option / without, {case}", ("option", "ratio"), gains)


if __name__ == "__main__":
    main()
