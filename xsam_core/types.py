"""Public types: what a closure is, and the records that a step leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Closure = Callable[[], Tensor]
Closures = Closure | Sequence[Closure]


@dataclass(frozen=True, slots=True)
class AlphaCurve:
    """The losses L(theta_0 + rho_max * v(alpha)) that a search looked at, in ascending alpha.

    On several ranks each loss is the mean over ranks, so the curve is the same everywhere.
    """

    alphas: tuple[float, ...]
    losses: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class StepTelemetry:
    """What the last step saw. Tensors are 0-dim and stay on their device until they are read.

    Losses and, in scope "local", the angle and the norms are this rank's own.

    Attributes:
        step: Number of the step, counted from 0.
        loss: Loss at theta_0.
        ascent_loss: Loss at theta_k, the end of the ascent.
        first_grad_norm: Norm of the gradient at theta_0, perturbed parameters only.
        ascent_grad_norm: Norm of the gradient at theta_k, perturbed parameters only.
        angle_rad: Angle between theta_k - theta_0 and the gradient at theta_k.
        alpha: The alpha used, or None for a variant that has none.
        curve: The probe curve if this step searched alpha.
        skipped: True if a GradScaler run overflowed and the step changed nothing.
    """

    step: int
    loss: Tensor
    ascent_loss: Tensor
    first_grad_norm: Tensor
    ascent_grad_norm: Tensor
    angle_rad: Tensor
    alpha: float | None = None
    curve: AlphaCurve | None = None
    skipped: bool = False

    @property
    def sharpness_gap(self) -> Tensor:
        """L(theta_k) - L(theta_0)."""
        return self.ascent_loss - self.loss

    def read(self) -> dict[str, float]:
        """Return the numbers as floats with a single wait for the device."""
        names = ("loss", "ascent_loss", "sharpness_gap", "first_grad_norm", "ascent_grad_norm", "angle_rad")
        values = [getattr(self, name).detach().to(self.loss.device, torch.float64) for name in names]
        numbers = dict(zip(names, torch.stack(values).tolist(), strict=True))
        return numbers if self.alpha is None else {**numbers, "alpha": self.alpha}
