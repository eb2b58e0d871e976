"""One walk of a step: up in passes, the direction, the exchange over ranks, and the base optimizer's way down.

The one place that knows the order of a step. How a step is asked for, saved and copied stands in optimizer.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from xsam_core.ascent import Ascent, clip_
from xsam_core.directions import Direction, Geometry
from xsam_core.distributed import Replicas
from xsam_core.drift import check_drift
from xsam_core.errors import ArgumentError, ClosureError, NonFiniteError
from xsam_core.finite_guard import FiniteGuard, check_finite
from xsam_core.functional import as_tensor
from xsam_core.parameters import OriginMemory, clear_grads, foreign_grads, mark_grads, plain, shard_groups
from xsam_core.passes import Passes
from xsam_core.radius import checked_rho, warmed_up
from xsam_core.scaling import LossScaling
from xsam_core.types import AlphaCurve, Closure, Closures, StepTelemetry


class NoClosure:
    """Tells `step()` from `step(closure=None)`."""


@dataclass(slots=True)
class Walk:
    """What one walk leaves: a record, and the ascent, whose gradients and theta_0 are still in place."""

    ascent: Ascent
    telemetry: StepTelemetry
    health: Tensor


@dataclass(slots=True)
class Computed:
    """A step up to its update gradient: the loss at theta_0, and the walk, or None if an overflow cancelled it."""

    loss: Tensor
    walk: Walk | None


class WalkingOptimizer(Optimizer):
    """The inner half of SharpnessAware: hooks of the variants, and the walk that calls them."""

    ascent_steps: int
    base_optimizer: Optimizer
    drift_check_every: int | None
    max_grad_norm: float | None
    _guard: FiniteGuard
    _memory: OriginMemory
    _queue: list[Closure]
    _replicas: Replicas
    _scaling: LossScaling | None
    _telemetry: StepTelemetry | None

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

    def _rho(self, group: dict[str, Any]) -> float:
        """Return the rho of a group in this step, before its warm-up."""
        return checked_rho(group)

    def _check_search(self, wanted: bool | None, search_closure: Closure | None) -> None:
        """Refuse to be asked for a search that there is none of."""
        has_none = f"{type(self).__name__} has no alpha to search"
        if wanted:
            raise ArgumentError(f"search_alpha must not be True: {has_none}")
        if search_closure is not None:
            raise ArgumentError(f"search_closure must be None: {has_none}")

    def _compute(
        self,
        closure: Closures | type[NoClosure] | None,
        search_alpha: bool | None,
        weights: Sequence[float] | None,
        grad_scaler: GradScaler | None,
        search_closure: Closure | None,
    ) -> Computed:
        """Leave the update gradient in `.grad`, the same on all ranks and clipped."""
        self._guard.raise_pending()
        passes = self._new_passes(closure, weights, grad_scaler, search_closure)
        try:
            self._check_search(search_alpha, search_closure)
            walk = self._walk(passes, search_alpha)
            self._exchange_and_clip(walk, passes)
        except NonFiniteError:
            clear_grads(passes.params)
            if self._scaling is None or passes.first_loss is None:
                raise
            self._scaling.report(torch.full_like(passes.first_loss, torch.nan))
            return Computed(passes.first_loss, None)
        except BaseException:
            clear_grads(passes.params)
            raise
        return Computed(walk.telemetry.loss, walk)

    def _new_passes(
        self,
        closure: Closures | type[NoClosure] | None,
        weights: Sequence[float] | None,
        grad_scaler: GradScaler | None,
        search_closure: Closure | None,
    ) -> Passes:
        queued, self._queue = self._queue, []
        if closure is None or isinstance(closure, type):
            closure = queued
        elif queued:
            raise ClosureError(
                f"got a closure while {len(queued)} of add_closure() waited, which are dropped now; use one way or "
                "the other"
            )
        scaling = None if grad_scaler is None else LossScaling(grad_scaler, self.param_groups)
        passes = Passes(closure, weights, self.param_groups, self._replicas, scaling, search_closure)
        if any(plain(grad).any() for grad in foreign_grads(passes.params)):
            raise ClosureError(
                "there were gradients before the step, of a backward() that was not the optimizer's, and it would "
                "drop them; leave backward() to the optimizer, or call zero_grad() if they may go"
            )
        self._scaling = scaling
        self._replicas.parts.look()
        return passes

    def _walk(self, passes: Passes, search_alpha: bool | None) -> Walk:
        """Leave the update gradient in `.grad` and theta_0 in the parameters."""
        radii = [warmed_up(group, self._rho(group), self._step) for group in self.param_groups]
        last_loss = loss = passes.backward()
        direction = self._direction()
        ascent = Ascent(self.param_groups, radii, mixes_first=direction.mixes_first_gradient, memory=self._memory)
        self._check_reach(ascent)
        raises_early = loss.is_cpu and self._guard.is_immediate(loss) and not self._replicas.is_local
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
            self._replicas.parts.put_buffers_back()
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
        return Walk(ascent, record, health)

    def _check_reach(self, ascent: Ascent) -> None:
        """Refuse a first pass that went past the parameters, or past what is known of their sharding."""
        if not ascent.slices and not self._replicas.is_local:
            raise ClosureError(
                "the loss reaches no parameter of this optimizer; if the model's parameters were replaced (by "
                "fully_shard, .to() or a copy), build the optimizer afterwards"
            )
        if any(piece.shard_groups for piece in ascent.slices):
            self._check_sharding()

    def _exchange_and_clip(self, walk: Walk, passes: Passes) -> None:
        """Make the update gradient the same on all ranks, and refuse or clip it."""
        angle = walk.telemetry.angle_rad
        if not self._guard.is_deferred(angle):
            walk.ascent.forget()
        if self._replicas.is_local:
            params = passes.trained_params()
            walk.health, angle = self._replicas.average_gradients(params, [walk.health * 0, angle])
            # Other ranks may have reached parameters that this one has not.
            walk.ascent.join_late()
        if self._scaling is not None or self._guard.is_immediate(angle):
            check_finite(walk.health, self._step)
        self._observe(angle)
        if self.max_grad_norm is not None:
            clip_(walk.ascent.slices, self.max_grad_norm)

    def _finish(self, computed: Computed) -> None:
        """Let the base optimizer descend, unless an overflow has cancelled the step, and count it."""
        if computed.walk is not None:
            self._descend(computed.walk)
        else:
            loss, unknown = computed.loss, torch.full_like(computed.loss, torch.nan)
            numbers = (loss, unknown, unknown, unknown, unknown)
            self._telemetry = StepTelemetry(self._step, *numbers, self._alpha_in_use(), None, skipped=True)
        self._count_step()

    def _descend(self, walk: Walk) -> None:
        if self._scaling is None and self._guard.is_deferred(walk.health):
            self._guard.guarded_step(self.base_optimizer, walk.ascent.slices, walk.health, self._step)
            walk.ascent.take_decoupled(walk.health)
            walk.ascent.forget()
        else:
            self.base_optimizer.step()
            walk.ascent.take_decoupled(None)
        mark_grads(p for piece in walk.ascent.slices for p in piece.params)
        self._telemetry = walk.telemetry

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

    def _check_sharding(self) -> None:
        if not any(shard_groups(p) for group in self.param_groups for p in group["params"]):
            return
        if not self._replicas.parts.fsdp_modules:
            raise ArgumentError(
                "model must be given with sharded parameters, so that they are gathered anew each pass, and be the "
                "one that fully_shard was called on; attach(model) tells it later"
            )
        if self._replicas.is_local:
            raise ArgumentError("scope must be global with sharded parameters: no rank has a model to climb on alone")
