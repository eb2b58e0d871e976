"""SharpnessAware: the optimizer that walks k passes up and lets a base optimizer walk down.

The one place that knows the order of a step. What a family member adds is its direction (directions.py);
which arguments it takes stands in variants.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from xsam_core.arguments import check_base_optimizer, check_choice, check_count, check_group, check_real
from xsam_core.ascent import Ascent, clip_
from xsam_core.batch_norm import tracking_modules
from xsam_core.checkpoint import FORMAT_VERSION, keep_scalar_dtypes, upgraded
from xsam_core.directions import Direction, Geometry
from xsam_core.distributed import Replicas, Scope
from xsam_core.drift import check_drift
from xsam_core.errors import ArgumentError, ClosureError, NonFiniteError
from xsam_core.finite_guard import FiniteGuard, NonFinite, check_finite
from xsam_core.functional import as_tensor
from xsam_core.parameters import OriginMemory, clear_grads, shard_groups, slices_with_grads
from xsam_core.passes import Passes
from xsam_core.scaling import LossScaling
from xsam_core.types import AlphaCurve, Closures, StepTelemetry


class _NoClosure:
    """Tells `step()`, a mistake, from `step(closure=None)`, which applies the gradients that are there."""


@dataclass(slots=True)
class _Walk:
    """What one walk leaves: a record, and the ascent, whose gradients and theta_0 are still in place."""

    ascent: Ascent
    telemetry: StepTelemetry
    health: Tensor


class SharpnessAware(Optimizer):
    """Base of the family: k ascent steps, one direction, one base optimizer.

    Not used by itself; SAM, ASAM, WSAM, GSAM, SGDPlus and XSAM derive from it, and so can yours: a subclass
    says its direction, nothing else.

    Args:
        params: As for any torch.optim optimizer. A group may set rho, rho_max, adaptive, adaptive_eta and
            perturb for itself, next to the base optimizer's options.
        base_optimizer: Class that takes the descent step, for example torch.optim.SGD.
        rho: Total length of the ascent, >= 0, in parameter space; each of k steps is rho / k long. A group
            with rho 0 is not perturbed.
        rho_max: Distance from theta_0 at which XSAM probes, > 0. None is 2 * rho, the authors' ratio, and
            follows rho when that is changed.
        ascent_steps: k, >= 1. A step costs k + 1 forward-backward passes.
        adaptive: Scale the perturbation by |w| + adaptive_eta per weight, as ASAM does.
        adaptive_eta: ASAM's eta, >= 0.
        perturb: Whether the ascent moves the group. False for norms and biases leaves them at theta_0, where
            they are updated with their gradient at theta_k.
        scope: `global` or `local`, see xsam_core.distributed; matters on several ranks only.
        process_group: The ranks that train one model together; None is DDP's group or the default one.
        model: What the closure calls (plain, DDP, compiled or FSDP2). Needed to freeze running statistics
            after the first pass, to skip DDP's needless traffic, and by FSDP2.
        max_grad_norm: Clip the update gradient to this norm, > 0; None does not.
        nonfinite: `auto`, `immediate`, `deferred` or `ignore`, see xsam_core.finite_guard.
        drift_check_every: Compare checksums of the parameters across ranks every that many steps; None never.
        base_options: Keywords of the base optimizer: lr, momentum, ...

    Raises:
        ArgumentError: An option is out of range.
    """

    def __init__(  # noqa: PLR0913 - one keyword per option, as torch.optim does
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
        max_grad_norm: float | None = None,
        nonfinite: str = "auto",
        drift_check_every: int | None = None,
        **base_options: Any,
    ) -> None:
        check_count("ascent_steps", ascent_steps)
        check_choice("scope", scope, Scope)
        check_choice("nonfinite", nonfinite, NonFinite)
        if max_grad_norm is not None:
            check_real("max_grad_norm", max_grad_norm, low=0.0, open_ends=True)
        if drift_check_every is not None:
            check_count("drift_check_every", drift_check_every)
        options = {
            "rho": rho,
            "rho_max": rho_max,
            "adaptive": adaptive,
            "adaptive_eta": adaptive_eta,
            "perturb": perturb,
        }
        options |= {"format_version": FORMAT_VERSION, "step_count": 0, **self._initial_run_state()}
        check_base_optimizer(base_optimizer, options)
        super().__init__(params, options)
        self.base_optimizer = base_optimizer(self.param_groups, **base_options)
        self.defaults = {**self.base_optimizer.defaults, **options}
        self.ascent_steps = ascent_steps
        self.max_grad_norm = max_grad_norm
        self.drift_check_every = drift_check_every
        self._replicas = Replicas(model, process_group, Scope(scope))
        self._norm_layers = tracking_modules(model) if model is not None else []
        self._guard = FiniteGuard(NonFinite(nonfinite))
        self._memory = OriginMemory()
        self._telemetry: StepTelemetry | None = None
        self._scaling: LossScaling | None = None
        for group in self.param_groups:
            check_group(group)
        self._share_with_base()
        self._check_sharding(model)

    @property
    def telemetry(self) -> StepTelemetry | None:
        """Record of the last step; None before the first."""
        return self._telemetry

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, which may set options of ours and of the base optimizer for itself.

        Raises:
            ArgumentError: An option is out of range; the group is not added.
        """
        super().add_param_group(param_group)
        added = self.param_groups[-1]
        try:
            check_group(added)
        except ValueError:
            del self.param_groups[-1]
            raise
        for key in ("step_count", *self._initial_run_state()):
            added[key] = self.param_groups[0][key]

    @torch.no_grad()
    def step(  # type: ignore[override]
        self,
        closure: Closures | type[_NoClosure] | None = _NoClosure,
        *,
        search_alpha: bool | None = None,
        weights: Sequence[float] | None = None,
        grad_scaler: GradScaler | None = None,
    ) -> Tensor | None:
        """Take one step and return the loss at the start point, detached.

        Args:
            closure: Runs the forward pass and returns the scalar loss with its graph; it does not call
                backward. A sequence has one closure per micro-batch, and every pass accumulates over all.
                None applies the gradients in `.grad` with the base optimizer, as torch.distributed.checkpoint
                does to create its state; it is no step of this optimizer.
            search_alpha: XSAM only: search alpha in this step, or not; None leaves it to the optimizer's options.
            weights: Share of each micro-batch in the loss, >= 0 and summing to 1; None means equal shares, right
                for mean losses of micro-batches of one size.
            grad_scaler: For fp16. If any pass overflows the step changes nothing; call its `update()` afterwards.

        Raises:
            ArgumentError: `weights` does not fit.
            ClosureError: No closure, or one that does not return a scalar loss with a graph.
            NonFiniteError: A loss or gradient is NaN or infinite (see `nonfinite`) and there is no scaler.
            SparseGradientError: A gradient is sparse.
            ReplicaDriftError: See `drift_check_every`; the step has been taken.
        """
        if closure is None:
            self.base_optimizer.step()
            return None
        if isinstance(closure, type):
            raise ClosureError("step() needs a closure that runs the forward pass and returns the loss")
        self._guard.raise_pending()
        self._scaling = None if grad_scaler is None else LossScaling(grad_scaler, self.param_groups)
        passes = Passes(closure, weights, self.param_groups, self._replicas, self._norm_layers, self._scaling)
        try:
            walk = self._walk(passes, search_alpha)
            self._exchange_and_clip(walk, passes)
        except NonFiniteError:
            clear_grads(passes.params)
            if self._scaling is None or passes.first_loss is None:
                raise
            self._skip(passes.first_loss, self._scaling)
        except BaseException:
            clear_grads(passes.params)
            raise
        else:
            self._descend(walk)
        self._count_step()
        return passes.first_loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict()` returned, here or in an older version; training goes on as if never stopped.

        A checkpoint of the plain base optimizer loads too: its momentum is taken over.

        Raises:
            CheckpointError: The format is newer than this library, or the groups do not fit.
        """
        saved = upgraded(state_dict, self.param_groups)
        super().load_state_dict(saved)
        keep_scalar_dtypes(self.state, self.param_groups, saved)
        self._share_with_base()

    def state_dict(self) -> dict[str, Any]:
        """Return the base optimizer's state and all groups; ours is a few numbers in the groups.

        Example:
            >>> weight = torch.nn.Parameter(torch.ones(2))
            >>> from xsam_core import SAM
            >>> optimizer = SAM([weight], torch.optim.SGD, rho=0.1, lr=0.1)
            >>> _ = optimizer.step(lambda: weight.square().sum())
            >>> optimizer.state_dict()["param_groups"][0]["step_count"]
            1
        """
        self._settle_run_state()
        return super().state_dict()

    def __getstate__(self) -> dict[str, Any]:
        """Copy and pickle all that is no process group; a copy finds the default group again."""
        # `step` is there if a scheduler wrapped it; it belongs to the scheduler's optimizer, not to the copy.
        dropped = {key for key in self.__dict__ if key == "step" or key.endswith("_hooks")}
        kept = {key: value for key, value in self.__dict__.items() if key not in dropped}
        return {**kept, "_telemetry": None, "_scaling": None, "_memory": OriginMemory()}

    def _direction(self) -> Direction:
        """Return the rule for the update gradient of this step."""
        raise NotImplementedError

    def _alpha_in_use(self) -> float | None:
        """Return what the record of a step says about alpha; None for a variant that has none."""
        return None

    def _initial_run_state(self) -> dict[str, Any]:
        """Return group keys that a variant keeps between steps, with their first values (no None, no NaN)."""
        return {}

    def _settle_run_state(self) -> None:
        """Bring group keys of `_initial_run_state` up to date before they are saved."""

    def _search(self, ascent: Ascent, passes: Passes, geometry: Geometry, wanted: bool | None) -> AlphaCurve | None:
        """Search alpha if it is time; between `measure` and `combine`."""
        return None

    def _observe(self, angle_rad: Tensor) -> None:
        """Take note of the angle that all ranks agree on."""

    def _walk(self, passes: Passes, search_alpha: bool | None) -> _Walk:
        """Leave the update gradient in `.grad` and theta_0 in the parameters."""
        last_loss = loss = passes.backward()
        mixes_first = self._direction().mixes_first_gradient
        ascent = Ascent(self.param_groups, mixes_first=mixes_first, memory=self._memory)
        raises_early = loss.device.type == "cpu" and self._guard.is_immediate(loss) and not self._replicas.is_local
        norms = []
        try:
            for _ in range(self.ascent_steps):
                norms.append(ascent.climb(self.ascent_steps))
                if raises_early:
                    check_finite(norms[-1], self._step)
                last_loss = passes.backward()
            geometry = ascent.measure()
            if raises_early:
                check_finite(geometry.last_norm, self._step)
            curve = self._search(ascent, passes, geometry, search_alpha)
            ascent.combine(self._direction().weights(geometry))
        finally:
            ascent.restore()
            self._replicas.reshard()
        health = as_tensor(sum(norms, start=ascent.health(geometry)), loss)
        record = StepTelemetry(
            step=self._step,
            loss=loss,
            ascent_loss=last_loss,
            first_grad_norm=as_tensor(norms[0], loss),
            ascent_grad_norm=as_tensor(geometry.last_norm, loss),
            angle_rad=as_tensor(geometry.angle_rad, loss),
            alpha=self._alpha_in_use(),
            curve=curve,
        )
        return _Walk(ascent, record, health)

    def _exchange_and_clip(self, walk: _Walk, passes: Passes) -> None:
        """Make the update gradient the same on all ranks, and refuse or clip it."""
        angle = walk.telemetry.angle_rad
        if not self._guard.is_deferred(angle):
            walk.ascent.forget()
        if self._replicas.is_local:
            params = passes.trained_params()
            walk.health, angle = self._replicas.average_gradients(params, [walk.health * 0, angle])
        if self._scaling is not None or self._guard.is_immediate(angle):
            check_finite(walk.health, self._step)
        self._observe(angle)
        if self.max_grad_norm is not None:
            clip_(slices_with_grads(self.param_groups, self._memory), self.max_grad_norm)

    def _descend(self, walk: _Walk) -> None:
        if self._scaling is None and self._guard.is_deferred(walk.health):
            self._guard.guarded_step(self.base_optimizer, walk.ascent.slices, walk.health, self._step)
            walk.ascent.forget()
        else:
            self.base_optimizer.step()
        self._telemetry = walk.telemetry

    def _skip(self, loss: Tensor, scaling: LossScaling) -> None:
        """Record a step that an overflow under a GradScaler has cancelled."""
        unknown = torch.full_like(loss, torch.nan)
        scaling.report(unknown)
        alpha = self._alpha_in_use()
        self._telemetry = StepTelemetry(self._step, loss, unknown, unknown, unknown, unknown, alpha, None, skipped=True)

    @property
    def _step(self) -> int:
        count: int = self.param_groups[0]["step_count"]
        return count

    def _count_step(self) -> None:
        step = self._step
        self._set_in_groups(step_count=step + 1)
        every = self.drift_check_every
        if every is not None and (step + 1) % every == 0 and self._replicas.world_size > 1:
            check_drift(self.param_groups, self._replicas.process_group, step)

    def _set_in_groups(self, **values: Any) -> None:
        for group in self.param_groups:
            group.update(values)

    def _share_with_base(self) -> None:
        """Let the base optimizer work on our groups and state; its own hooks for old checkpoints run too."""
        self.base_optimizer.__setstate__({"state": self.state, "param_groups": self.param_groups})
        self.state = self.base_optimizer.state

    def _check_sharding(self, model: nn.Module | None) -> None:
        if not any(shard_groups(p) for group in self.param_groups for p in group["params"]):
            return
        if model is None:
            raise ArgumentError("model must be given with sharded parameters, so that they are gathered anew each pass")
        if self._replicas.is_local:
            raise ArgumentError("scope must be global with sharded parameters: no rank has a model to climb on alone")
