"""Figure 7 of bench-core: a loss plane of 41 x 41 points against the bare passes that it needs.

The whole plane takes minutes, and on a busy machine its bare passes, minutes later, run at another speed. So a few of
its rows are timed, each right beside as many bare forward passes, and then it is given up; the rest of a plane (axes,
circle, alphas) is timed as the plane of 3 x 3 points, in turns with its own passes. Both make up the ratio.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from tests.bench.core_models import Case, Rig
from tests.bench.core_timing import interleaved_seconds, table
from xsam_core import loss_plane
from xsam_core.batch_norm import frozen_running_stats

NUM_POINTS = 41
NUM_ROWS = 3
"""That are timed, after one that warms up."""
NUM_GRADIENTS = 2
LIMITS = {
    "ResNet-18 (CIFAR stem), batch 32": "1.10",
    "ResNet-18 (CIFAR stem), batch 8": "1.10",
    "MLP 784-256-256-10, batch 64": "-",
}
"""The cases and their targets; of a larger batch the passes take longer and moving the weights does not."""


class _EnoughError(Exception):
    pass


def report(cases: tuple[Case, ...]) -> None:
    """Print the table."""
    rows = []
    for case in (case for case in cases if case.name in LIMITS):
        rig = Rig(case)
        row, per_point = _row_ratio(rig)
        rest, num_rest = _rest_ratio(rig)
        num_points = NUM_POINTS**2
        whole = (num_points * row + num_rest * rest) / (num_points + num_rest)
        rows.append((case.name, f"{per_point * 1e3:.1f}", row, rest, whole, LIMITS[case.name]))
    header = ("case", "ms a bare pass", "rows of 41", "axes, circle, alphas", "41 x 41", "target")
    table("7. Loss plane, against its passes alone", header, rows)


def _row_ratio(rig: Rig) -> tuple[float, float]:
    """Return the median ratio of a row to as many bare passes, and the seconds of one."""
    taken: list[float] = []
    started_at = 0.0
    model: nn.Module = rig.model

    def on_row(rows: tuple[tuple[float, ...], ...]) -> None:
        nonlocal started_at
        row, done = time.perf_counter() - started_at, len(rows)
        if done > 1:  # the first one began before anything was timed
            bare = _seconds_of(lambda: _forwards(rig, NUM_POINTS))
            taken.append(row / bare)
            per_point.append(bare / NUM_POINTS)
        if done > NUM_ROWS:
            raise _EnoughError
        started_at = time.perf_counter()

    per_point: list[float] = []
    with contextlib.suppress(_EnoughError):
        loss_plane(model, rig.loss, rho=0.05, num_points=NUM_POINTS, on_row=on_row)
    return statistics.median(taken), statistics.median(per_point)


def _rest_ratio(rig: Rig) -> tuple[float, int]:
    """Return the ratio of a small plane to its passes, and how many forward passes it makes."""
    calls = 0

    def counted() -> torch.Tensor:
        nonlocal calls
        calls += 1
        return rig.loss()

    loss_plane(rig.model, counted, rho=0.05, num_points=3)
    num_forwards = calls - NUM_GRADIENTS

    def bare() -> None:
        with frozen_running_stats(rig.model):
            for _ in range(NUM_GRADIENTS):
                torch.autograd.grad(rig.loss(), list(rig.model.parameters()))
            _forwards(rig, num_forwards)

    def plane() -> None:
        loss_plane(rig.model, rig.loss, rho=0.05, num_points=3)

    seconds = interleaved_seconds({"plane": plane, "bare": bare}, 2, warm_up=0)
    return seconds["plane"] / seconds["bare"], num_forwards


def _forwards(rig: Rig, number: int) -> None:
    with torch.no_grad():
        for _ in range(number):
            rig.loss().item()


def _seconds_of(run: Callable[[], object]) -> float:
    started_at = time.perf_counter()
    run()
    return time.perf_counter() - started_at
