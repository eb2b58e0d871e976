"""What a step does beyond its passes, against the memory traffic that no step of XSAM can do without.

Gradients are handed to backward ready-made, so that passes cost next to nothing and their noise does not hide the rest.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tests.bench.core_models import Case, Rig
from tests.bench.core_timing import interleaved_seconds, table

TRANSFERS = 13
"""Model-sized reads and writes of a step with k = 1, if whatever is fetched once is used for all it is good for.

Before the second pass the norm of g_0 is needed (1 read) to move up (read theta and g_0, write theta_0 and theta_1: 4).
After it the angle is needed (read theta_1, theta_0 and g_1: 3) to mix and to go back (read the same, write the gradient
and theta_0: 5).
"""
ROUNDS_FOR_ONE = 4
"""Rounds for each round of the step-time table: these are short."""


class ReadyMade(torch.autograd.Function):
    """A loss whose gradients are known: backward hands them out."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, grads: list[Tensor], *params: Tensor) -> Tensor:
        """Return a scalar; reads no parameter."""
        ctx.grads = grads
        return params[0].new_ones(())

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, _: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients given to `forward`."""
        return None, *ctx.grads


def report(cases: tuple[Case, ...]) -> None:
    """Print what a step's own work costs, in milliseconds and against the least traffic."""
    rows = []
    for case in cases:
        rig = Rig(case)
        params = list(rig.model.parameters())
        own_ms, least_ms = _own_work(rig, params, ROUNDS_FOR_ONE * case.rounds)
        megabytes = sum(p.numel() * p.element_size() for p in params) / 2**20
        rows.append((case.name, f"{megabytes:.1f}", len(params), f"{own_ms:.2f}", f"{least_ms:.2f}", own_ms / least_ms))
    header = ("case", "MiB", "tensors", "own work ms", f"{TRANSFERS} transfers ms", "own work / least")
    table("6. XSAM's own work in a step without search, against the least memory traffic", header, rows)


def _own_work(rig: Rig, params: list[nn.Parameter], rounds: int) -> tuple[float, float]:
    """Return the milliseconds of a step beyond two passes and the base step, and of its unavoidable traffic."""
    seeds = [torch.randn_like(p) for p in params]

    def loss() -> Tensor:
        return ReadyMade.apply(seeds, *params)

    rig.loss = loss  # type: ignore[method-assign]
    optimizer = rig.xsam(alpha=1.2)
    buffers = [torch.empty_like(p) for p in params]
    timed: dict[str, Callable[[], object]] = {
        "ideal": rig.ideal_step,
        "step": lambda: optimizer.step(loss),
        "copy": lambda: torch._foreach_copy_(buffers, [p.detach() for p in params]),
    }
    seconds = interleaved_seconds(timed, rounds)
    return 1e3 * (seconds["step"] - seconds["ideal"]), 1e3 * seconds["copy"] * TRANSFERS / 2
