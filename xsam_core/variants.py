"""The public optimizers: each is SharpnessAware with one direction and the arguments of that direction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from xsam_core.alpha_search import drive, grid_search
from xsam_core.ascent import Ascent
from xsam_core.directions import Direction, Geometry, SAMDirection, SlerpDirection
from xsam_core.optimizer import SharpnessAware
from xsam_core.passes import Passes
from xsam_core.types import AlphaCurve


class SAM(SharpnessAware):
    """Sharpness-aware minimization: the base optimizer gets the gradient at the ascent point."""

    def _direction(self) -> Direction:
        return SAMDirection()


class XSAM(SharpnessAware):
    """SAM along the direction in which, at a distance of rho_max, the loss is highest."""

    def __init__(
        self,
        params: ParamsT,
        base_optimizer: type[Optimizer],
        *,
        alpha: float | None = None,
        alpha_max: float = 2.0,
        alpha_delta: float = 0.1,
        **options: Any,
    ) -> None:
        super().__init__(params, base_optimizer, **options)
        self._is_alpha_fixed = alpha is not None
        self.alpha = 1.0 if alpha is None else alpha
        self.alpha_max = alpha_max
        self.alpha_delta = alpha_delta
        self._has_searched = False

    def _direction(self) -> Direction:
        return SlerpDirection(self.alpha)

    def _maybe_search(
        self, ascent: Ascent, passes: Passes, geometry: Geometry, search_alpha: bool | None
    ) -> AlphaCurve | None:
        wants = search_alpha if search_alpha is not None else not self._has_searched
        if self._is_alpha_fixed or not wants:
            return None
        probes = ascent.probes(geometry)

        def evaluate(alphas: Sequence[float]) -> list[float]:
            losses = []
            for alpha in alphas:
                probes.move_to(alpha)
                losses.append(passes.probe())
            return self._replicas.mean_losses(losses)

        estimate = drive(grid_search(self.alpha_max, self.alpha_delta, self.alpha), evaluate)
        probes.finish()
        self.alpha = estimate.alpha
        self._has_searched = True
        return estimate.curve
