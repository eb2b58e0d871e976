"""What happens when a loss or gradient is NaN or infinite, with and without waiting for the device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum

import torch
from torch import Tensor
from torch.optim import Optimizer

from xsam_core.errors import NonFiniteError
from xsam_core.functional import Scalar
from xsam_core.parameters import ParamSlice


class NonFinite(StrEnum):
    """When a step that met a NaN or an infinity says so.

    - `immediate`: the step itself raises; it reads one number per pass on the CPU, one per step elsewhere.
    - `deferred`: the step waits for nothing. The device leaves the parameters as they were, and the next
      `step()` raises. A fused base optimizer skips its update, state included; any other sees a zero
      gradient, which its momentum remembers.
    - `ignore`: nobody looks; parameters become NaN as with a plain torch.optim optimizer.
    - `auto`: immediate where the loss lives on the CPU, deferred elsewhere.
    """

    AUTO = "auto"
    IMMEDIATE = "immediate"
    DEFERRED = "deferred"
    IGNORE = "ignore"


class FiniteGuard:
    """Watches one optimizer's steps for numbers that are not finite."""

    def __init__(self, mode: NonFinite) -> None:
        self._mode = mode
        self._pending: tuple[int, Tensor] | None = None

    def is_immediate(self, like: Tensor) -> bool:
        """Whether a step whose loss lives where `like` does raises at once."""
        if self._mode is NonFinite.AUTO:
            return like.is_cpu
        return self._mode is NonFinite.IMMEDIATE

    def is_deferred(self, like: Tensor) -> bool:
        """Whether a step whose loss lives where `like` does leaves the news to the next one."""
        return self._mode is not NonFinite.IGNORE and not self.is_immediate(like)

    def raise_pending(self) -> None:
        """Raise what a deferred step has found since.

        Raises:
            NonFiniteError: The last step met a NaN or an infinity.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            check_finite(pending[1], pending[0])

    def guarded_step(self, base: Optimizer, slices: Sequence[ParamSlice], health: Tensor, step: int) -> None:
        """Run the base optimizer's step such that nothing moves if `health` is not finite, without reading it.

        Args:
            base: The base optimizer, its gradients in place.
            slices: All parameters with a gradient; `origin`, where filled, is the value to keep.
            health: Finite exactly if the step is good.
            step: Number of the step, for the error.
        """
        self._pending = (step, health)
        is_finite = health.isfinite()
        if getattr(base, "_step_supports_amp_scaling", False):
            base.grad_scale, base.found_inf = None, (~is_finite).float()  # type: ignore[attr-defined]
            try:
                base.step()
            finally:
                del base.grad_scale, base.found_inf  # type: ignore[attr-defined]
            return
        for piece in slices:
            flag = is_finite.to(piece.values[0].device)
            piece.keep_origin()
            for grad in piece.grads:
                grad.copy_(torch.where(flag, grad, 0.0))
        base.step()
        for piece in slices:
            flag = is_finite.to(piece.values[0].device)
            for value, origin in zip(piece.values, piece.origin, strict=True):
                value.copy_(torch.where(flag, value, origin))


def check_finite(number: Scalar, step: int) -> None:
    """Read `number` and refuse it if it is not finite.

    Raises:
        NonFiniteError: It is NaN or infinite.
    """
    if not math.isfinite(number):
        raise NonFiniteError(
            f"step {step} met a loss or gradient that is NaN or infinite; the parameters are as they were before it",
            step,
        )
