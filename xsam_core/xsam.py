"""XSAM: searches, now and then, how far past the ascent gradient to turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from xsam_core.alpha_search import (
    NEVER,
    UNKNOWN_ANGLE,
    AlphaSearch,
    SearchSchedule,
    adaptive_search,
    drive,
    grid_search,
)
from xsam_core.arguments import check_choice, check_real
from xsam_core.ascent import Ascent
from xsam_core.directions import Direction, Geometry, SlerpDirection
from xsam_core.errors import ArgumentError
from xsam_core.optimizer import SharpnessAware
from xsam_core.passes import Passes
from xsam_core.types import AlphaCurve, Closure

# The paper searches once an epoch, every 400 steps of its setting, and reports that the frequency matters little (its
# figure 4). On small data an epoch may be 10 steps, or on large data 10,000, so steps are counted: the 21 forwards of a
# grid are worth 3.5 steps of k = 1, hence at most 3.5 % of the time at this number, whatever the data.
DEFAULT_ALPHA_EVERY = 100

# alpha before the first search; 1 is SAM.
_INITIAL_ALPHA = 1.0


class XSAM(SharpnessAware):
    """SAM along the direction in which, at the distance rho_max, the loss is highest.

    That direction lies between the displacement of the ascent (alpha 0) and the gradient at its end (alpha 1)
    or beyond. Its alpha moves slowly, so it is searched now and then, with forward passes only.

    Args: those of SharpnessAware, and:
        alpha: Fixes alpha, in [0, alpha_max]; 0 is SGD+, 1 is SAM. None searches it, from 1.0.
        alpha_max: End of the search range, > 0.
        alpha_delta: Spacing of the grid, in (0, alpha_max].
        alpha_search: `grid` probes every point of the grid, as the paper does; `adaptive` finds the maximum of
            the same curve with about a third of the forwards or less.
        alpha_every: Search in steps 0, N, 2N, ... None searches in the first step, and then only when
            `alpha_angle_change` or `step(search_alpha=True)` says so.
        alpha_angle_change: Also search when the angle has moved by more than that many rad since the last search.

    The first step searches if nothing else is said, and `step(search_alpha=...)` always has the last word.

    Attributes:
        alpha: The alpha in use. Setting it is allowed between steps.

    Raises:
        ArgumentError: An option is out of range.

    References:
        Chen and Zhou, "Revisiting Sharpness-Aware Minimization: A More Faithful and Effective Implementation",
        ICLR 2026, arXiv 2603.10048; authors' code Cccjl219/XSAM. On several ranks that code searches on each
        rank's own batch; here all ranks share one curve.

    Example:
        >>> import torch
        >>> w = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
        >>> optimizer = XSAM([w], torch.optim.SGD, rho=0.5, lr=0.1)
        >>> loss = optimizer.step(lambda: w[0] ** 2 + 10 * w[1] ** 2)
        >>> len(optimizer.telemetry.curve.alphas), optimizer.alpha
        (21, 1.6)
        >>> loss = optimizer.step(lambda: w[0] ** 2 + 10 * w[1] ** 2)
        >>> optimizer.telemetry.curve is None
        True
    """

    def __init__(  # noqa: PLR0913 - one keyword per option, as torch.optim does
        self,
        params: ParamsT,
        base_optimizer: type[Optimizer],
        *,
        rho: float = 0.15,
        alpha: float | None = None,
        alpha_max: float = 2.0,
        alpha_delta: float = 0.1,
        alpha_search: str = "grid",
        alpha_every: int | None = DEFAULT_ALPHA_EVERY,
        alpha_angle_change: float | None = None,
        **options: Any,
    ) -> None:
        self.alpha_max = check_real("alpha_max", alpha_max, low=0.0, open_ends=True)
        self.alpha_delta = check_real("alpha_delta", alpha_delta, low=0.0, high=alpha_max)
        if alpha_delta == 0:
            raise ArgumentError(f"alpha_delta must be > 0 and <= alpha_max, got {alpha_delta!r}")
        check_choice("alpha_search", alpha_search, ("grid", "adaptive"))
        if alpha is not None:
            alpha = check_real("alpha", alpha, low=0.0, high=alpha_max)
        self._schedule = SearchSchedule(alpha_every, alpha_angle_change)
        self._is_alpha_fixed = alpha is not None
        self._initial_alpha = _INITIAL_ALPHA if alpha is None else alpha
        self.alpha_search = alpha_search
        self._angle: Tensor | None = None
        super().__init__(params, base_optimizer, rho=rho, **options)

    @property
    def alpha(self) -> float:
        """Alpha in use: fixed, found by the last search, or 1.0 before the first."""
        return float(self.param_groups[0]["xsam_alpha"])

    @alpha.setter
    def alpha(self, alpha: float) -> None:
        self._set_in_groups(xsam_alpha=check_real("alpha", alpha, low=0.0, high=self.alpha_max))

    def _direction(self) -> Direction:
        return SlerpDirection(self.alpha)

    def _alpha_in_use(self) -> float | None:
        return self.alpha

    def _initial_run_state(self) -> dict[str, Any]:
        return {
            "xsam_alpha": self._initial_alpha,
            "xsam_searched_at": NEVER,
            "xsam_searched_angle_rad": UNKNOWN_ANGLE,
            "xsam_last_angle_rad": UNKNOWN_ANGLE,
        }

    def _observe(self, angle_rad: Tensor) -> None:
        self._angle = angle_rad
        if self._schedule.angle_change_rad is not None and self.param_groups[0]["xsam_searched_at"] == self._step:
            self._set_in_groups(xsam_searched_angle_rad=angle_rad.item())

    def _settle_run_state(self) -> None:
        # Only the angle trigger needs the angle; without it saving must not wait for the device.
        if self._schedule.angle_change_rad is not None and self._angle is not None:
            self._set_in_groups(xsam_last_angle_rad=self._angle.item())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:  # noqa: D102 - as the base class
        super().load_state_dict(state_dict)
        self._angle = None

    def _check_search(self, wanted: bool | None, search_closure: Closure | None) -> None:
        if wanted and self._is_alpha_fixed:
            raise ArgumentError(f"search_alpha must not be True: alpha is fixed to {self._initial_alpha}")

    def _is_search_due(self) -> bool:
        self._settle_run_state()
        group = self.param_groups[0]
        return self._schedule.is_due(
            step=self._step,
            searched_at=group["xsam_searched_at"],
            searched_angle_rad=group["xsam_searched_angle_rad"],
            angle_rad=group["xsam_last_angle_rad"],
        )

    def _search(self, ascent: Ascent, passes: Passes, geometry: Geometry, wanted: bool | None) -> AlphaCurve | None:
        if self._is_alpha_fixed or not (self._is_search_due() if wanted is None else wanted):
            return None
        probes = ascent.probes(geometry)

        def evaluate(alphas: Sequence[float]) -> list[float]:
            losses = []
            for alpha in alphas:
                probes.move_to(alpha)
                losses.append(passes.probe())
            return self._replicas.mean_losses(losses)

        estimate = drive(self._new_search(), evaluate)
        probes.finish()
        self._set_in_groups(xsam_alpha=estimate.alpha, xsam_searched_at=self._step)
        return estimate.curve

    def _new_search(self) -> AlphaSearch:
        if self.alpha_search == "grid":
            return grid_search(self.alpha_max, self.alpha_delta, self.alpha)
        is_first = self.param_groups[0]["xsam_searched_at"] == NEVER
        return adaptive_search(self.alpha_max, self.alpha, is_first=is_first)
