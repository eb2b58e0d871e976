"""SharpnessAware: the optimizer that walks k passes up and lets a base optimizer walk down.

The one place that knows the order of a step. What a family member adds is its direction (directions.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from xsam_core.arguments import check_base_optimizer, check_choice, check_count, check_group
from xsam_core.ascent import Ascent
from xsam_core.batch_norm import tracking_modules
from xsam_core.directions import Direction, Geometry
from xsam_core.distributed import Replicas, Scope
from xsam_core.errors import ClosureError, NonFiniteError
from xsam_core.parameters import clear_grads
from xsam_core.passes import Passes
from xsam_core.scaling import LossScaling
from xsam_core.types import AlphaCurve, Closures, StepTelemetry


class _Missing:
    """Tells `step()` from `step(closure=None)`."""


class SharpnessAware(Optimizer):
    """Base of the family: k ascent steps, one direction, one base optimizer."""

    def __init__(  # noqa: PLR0913
        self,
        params: ParamsT,
        base_optimizer: type[Optimizer],
        *,
        rho: float = 0.05,
        rho_max: float | None = None,
        ascent_steps: int = 1,
        adaptive: bool = False,
        adaptive_eta: float = 0.01,
        perturb: bool = True,
        scope: str = "global",
        process_group: dist.ProcessGroup | None = None,
        model: nn.Module | None = None,
        **base_options: Any,
    ) -> None:
        check_base_optimizer(base_optimizer)
        check_count("ascent_steps", ascent_steps)
        check_choice("scope", scope, Scope)
        options = {
            "rho": rho,
            "rho_max": rho_max,
            "adaptive": adaptive,
            "adaptive_eta": adaptive_eta,
            "perturb": perturb,
        }
        super().__init__(params, options)
        self.base_optimizer = base_optimizer(self.param_groups, **base_options)
        self.defaults = {**self.base_optimizer.defaults, **options}
        self._share_with_base()
        self.ascent_steps = ascent_steps
        self._replicas = Replicas(model, process_group, Scope(scope))
        self._norm_layers = tracking_modules(model) if model is not None else []
        self._step_count = 0
        self._telemetry: StepTelemetry | None = None
        self._scaling: LossScaling | None = None

    @property
    def telemetry(self) -> StepTelemetry | None:
        """Record of the last step; None before the first."""
        return self._telemetry

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its keys may include rho, rho_max, adaptive, adaptive_eta and perturb.

        Raises:
            ArgumentError: An option is out of range.
        """
        super().add_param_group(param_group)
        try:
            check_group(self.param_groups[-1])
        except ValueError:
            del self.param_groups[-1]
            raise

    @torch.no_grad()
    def step(  # type: ignore[override]
        self,
        closure: Closures | type[_Missing] | None = _Missing,
        *,
        search_alpha: bool | None = None,
        weights: Sequence[float] | None = None,
        grad_scaler: GradScaler | None = None,
    ) -> Tensor | None:
        """Take one step and return the loss at the start point, detached."""
        if closure is None:
            self.base_optimizer.step()
            return None
        if isinstance(closure, type):
            raise ClosureError("step() needs a closure that runs the forward pass and returns the loss")
        self._scaling = None if grad_scaler is None else LossScaling(grad_scaler, self.param_groups)
        passes = Passes(closure, weights, self.param_groups, self._replicas, self._norm_layers, self._scaling)
        try:
            self._telemetry = self._walk(passes, search_alpha)
        except BaseException:
            clear_grads(p for group in self.param_groups for p in group["params"])
            raise
        self.base_optimizer.step()
        self._step_count += 1
        return self._telemetry.loss

    def _walk(self, passes: Passes, search_alpha: bool | None) -> StepTelemetry:
        """Leave the update gradient in `.grad` and theta_0 in the parameters."""
        ascent_loss = loss = passes.backward()
        ascent = Ascent(self.param_groups, self._direction(), like=loss)
        first_norm: Tensor | None = None
        try:
            for _ in range(self.ascent_steps):
                norm = ascent.climb(self.ascent_steps)
                first_norm = norm if first_norm is None else first_norm
                self._check_finite(norm)
                ascent_loss = passes.backward()
            geometry = ascent.measure()
            self._check_finite(ascent.health(geometry))
            curve = self._maybe_search(ascent, passes, geometry, search_alpha)
            ascent.combine(self._direction().weights(geometry))
        finally:
            ascent.restore()
        assert first_norm is not None  # noqa: S101 - ascent_steps >= 1
        return StepTelemetry(
            step=self._step_count,
            loss=loss,
            ascent_loss=ascent_loss,
            first_grad_norm=first_norm,
            ascent_grad_norm=geometry.last_norm,
            angle_rad=geometry.angle_rad,
            alpha=getattr(self, "alpha", None),
            curve=curve,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the base optimizer's state, all groups, and the few numbers that live between steps."""
        return {**super().state_dict(), "sharpness_aware": self._run_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned; training goes on as if it had not stopped."""
        super().load_state_dict({key: state_dict[key] for key in ("state", "param_groups")})
        self.base_optimizer.__setstate__({"state": self.state, "param_groups": self.param_groups})
        self._set_run_state(state_dict["sharpness_aware"])

    def _run_state(self) -> dict[str, Any]:
        return {"format_version": 1, "step_count": self._step_count, "alpha": getattr(self, "alpha", None)}

    def _set_run_state(self, run_state: dict[str, Any]) -> None:
        self._step_count = run_state["step_count"]
        if run_state["alpha"] is not None:
            self.alpha = run_state["alpha"]

    def _direction(self) -> Direction:
        raise NotImplementedError

    def _maybe_search(
        self, ascent: Ascent, passes: Passes, geometry: Geometry, search_alpha: bool | None
    ) -> AlphaCurve | None:
        return None

    def _check_finite(self, number: Tensor) -> None:
        if not math.isfinite(number.item()):
            raise NonFiniteError(
                f"step {self._step_count}: a loss or gradient is not finite; the parameters are unchanged",
                self._step_count,
            )

    def _share_with_base(self) -> None:
        self.base_optimizer.param_groups = self.param_groups
        self.state = self.base_optimizer.state
