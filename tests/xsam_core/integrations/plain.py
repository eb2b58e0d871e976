"""The plain loop that every integration has to follow, and the tiny problem they share."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from xsam_core import XSAM

NUM_ROWS, ROWS_PER_BATCH, ACCUMULATION = 24, 2, 2
ROWS_PER_STEP = ROWS_PER_BATCH * ACCUMULATION
MAX_NORM = 0.3
SHARPNESS = {"rho": 0.05, "alpha_every": 2, "ascent_steps": 2}


def import_or_skip(name: str):
    """Return a package, or skip the module; what it warns of while it is imported is not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, reason=f"{name} is not installed; the dev extra brings it")


def network(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 12, bias=False), nn.BatchNorm1d(12), nn.Tanh(), nn.Linear(12, 3))
    return model.to(dtype)


def data(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(NUM_ROWS, 6, generator=generator).to(dtype), torch.randint(3, (NUM_ROWS,), generator=generator)


def optimizer_of(model: nn.Module, **options) -> XSAM:
    return XSAM(model.parameters(), torch.optim.AdamW, model=model, lr=0.02, weight_decay=0.0, **SHARPNESS, **options)


def micro_batches(step: int, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    """Return the micro-batches of a step; the data is walked in order, again and again."""
    inputs, targets = data(dtype)
    start = step * ROWS_PER_STEP % NUM_ROWS
    rows = slice(start, start + ROWS_PER_STEP)
    return list(zip(inputs[rows].split(ROWS_PER_BATCH), targets[rows].split(ROWS_PER_BATCH), strict=True))


def walk(
    num_steps: int,
    *,
    lr_factor: Callable[[int], float],
    bf16: bool = False,
    dtype: torch.dtype = torch.float32,
):
    """Train with nothing around, and return the model, the losses and the optimizer."""
    model = network(dtype)
    optimizer = optimizer_of(model, max_grad_norm=MAX_NORM)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lr_factor)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            output = model(x)
        return nn.functional.cross_entropy(output.to(dtype), y)

    losses = []
    for step in range(num_steps):
        losses.append(optimizer.step([lambda x=x, y=y: loss(x, y) for x, y in micro_batches(step, dtype)]).item())
        scheduler.step()
    return model, losses, optimizer


def assert_follows(model: nn.Module, expected: nn.Module, *, bf16: bool) -> None:
    for (name, value), reference in zip(model.state_dict().items(), expected.state_dict().values(), strict=True):
        tolerance = 2e-2 if bf16 else 1e-4
        torch.testing.assert_close(value, reference, rtol=tolerance, atol=tolerance, msg=name)
