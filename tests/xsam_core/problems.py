"""Small problems in float64 that the optimizer tests share."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from xsam_core import XSAM, SharpnessAware


@dataclass
class Problem:
    """A model with a fixed batch per step number."""

    model: nn.Module
    inputs: Tensor
    targets: Tensor

    def loss(self, step: int, rows: slice = slice(None)) -> Tensor:
        batch = step % len(self.inputs)
        return nn.functional.cross_entropy(self.model(self.inputs[batch][rows]), self.targets[batch][rows])

    def closure(self, step: int = 0, rows: slice = slice(None)):
        return lambda: self.loss(step, rows)

    @property
    def params(self) -> list[Tensor]:
        return list(self.model.parameters())

    def snapshot(self) -> list[Tensor]:
        return [p.detach().clone() for p in self.params]


def classification(seed: int = 0, *, batch_norm: bool = False, dtype: torch.dtype = torch.float64) -> Problem:
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        norm = [nn.BatchNorm1d(8)] if batch_norm else []
        model = nn.Sequential(nn.Linear(5, 8), *norm, nn.Tanh(), nn.Linear(8, 3)).to(dtype)
    inputs = torch.randn(4, 8, 5, generator=generator, dtype=torch.float64).to(dtype)
    return Problem(model, inputs, torch.randint(3, (4, 8), generator=generator))


def build(
    problem: Problem,
    variant: type[SharpnessAware] = XSAM,
    base: type[torch.optim.Optimizer] = torch.optim.SGD,
    **options: Any,
) -> Any:
    """Build an optimizer with usual options; `Any`, because tests also ask for what only some variants have."""
    return variant(problem.params, base, model=problem.model, **{"lr": 0.1, "momentum": 0.9, **options})


def same(before: list[Tensor], after: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def largest_difference(before: list[Tensor], after: list[Tensor]) -> float:
    """Return the largest difference relative to the size of its tensor."""
    return max(((a - b).norm() / b.norm().clamp(min=1e-30)).item() for a, b in zip(before, after, strict=True))
