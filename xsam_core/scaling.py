"""Loss scaling for fp16: several backward passes in one step under one torch.amp.GradScaler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler


class _Unscaled:
    """Stands in for an optimizer in `GradScaler.unscale_`, which takes each one once per update."""

    def __init__(self, param_groups: Sequence[dict[str, Any]]) -> None:
        self.param_groups = param_groups


class LossScaling:
    """Scales each pass of one step, and tells the scaler about an overflow in any of them.

    The scaler keeps what it found by object identity until `update()`, so the stand-ins of a step live as
    long as this object, and the optimizer keeps this object until its next step.
    """

    def __init__(self, scaler: GradScaler, param_groups: Sequence[dict[str, Any]]) -> None:
        self._scaler = scaler
        self._param_groups = param_groups
        self._stand_ins: list[_Unscaled] = []

    def scale(self, loss: Tensor) -> Tensor:
        """Return the loss times the present scale."""
        scaled: Tensor = self._scaler.scale(loss)
        return scaled

    def unscale(self) -> None:
        """Divide the gradients of the pass that just ended by the scale, noting overflows."""
        self._unscale(self._param_groups)

    def report(self, health: Tensor) -> None:
        """Note an overflow if `health`, on which all ranks agree, is not finite.

        Without it a rank whose own gradients are fine would keep its scale while others shrink theirs.
        """
        witness = torch.nn.Parameter(torch.zeros((), dtype=torch.float32, device=health.device))
        witness.grad = health.detach().to(torch.float32).mul(0)
        self._unscale([{"params": [witness]}])

    def _unscale(self, param_groups: Sequence[dict[str, Any]]) -> None:
        stand_in = _Unscaled(param_groups)
        self._stand_ins.append(stand_in)
        self._scaler.unscale_(stand_in)  # type: ignore[arg-type]
