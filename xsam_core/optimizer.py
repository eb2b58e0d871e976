"""SharpnessAware: the optimizer that walks k passes up and lets a base optimizer walk down.

Its options, how a step is asked for, and what is saved; the order of a step stands in walk.py. What a family member
adds is its direction (directions.py); which arguments it takes stands in variants.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from xsam_core.arguments import (
    check_base_optimizer,
    check_choice,
    check_count,
    check_group,
    check_options,
    check_real,
    check_spelling,
)
from xsam_core.checkpoint import FORMAT_VERSION, check_options_fit, check_state_fits, keep_scalar_dtypes, upgraded
from xsam_core.distributed import Replicas, Scope
from xsam_core.errors import ClosureError
from xsam_core.finite_guard import FiniteGuard, NonFinite
from xsam_core.model_parts import ModelParts
from xsam_core.parameters import (
    OriginMemory,
    has_gradients,
    mark_grads,
    plain,
)
from xsam_core.scaling import LossScaling
from xsam_core.types import Closure, Closures, StepTelemetry
from xsam_core.walk import Computed, NoClosure, WalkingOptimizer


class SharpnessAware(WalkingOptimizer):
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
        rho_warmup_steps: Let rho (and rho_max) grow in a straight line over that many steps, >= 0; see
            xsam_core.radius. 0 does not.
        adaptive: Scale the perturbation by |w| + adaptive_eta per weight, as ASAM does.
        adaptive_eta: ASAM's eta, >= 0.
        perturb: Whether the ascent moves the group. False for norms and biases leaves them at theta_0, where
            they are updated with their gradient at theta_k.
        scope: `global` or `local`, see xsam_core.distributed; matters on several ranks only.
        process_group: The ranks that train one model together; None is DDP's group or the default one.
        model: What the closure calls (plain, DDP, compiled or FSDP2), wrapped already or wrapped later. Its running
            statistics are frozen after the first pass, DDP's needless traffic is skipped, and FSDP2 needs it.
            None: the modules that the closure calls in the first step. See `attach`.
        max_grad_norm: Clip the update gradient to this norm, > 0; None does not.
        nonfinite: `auto`, `immediate`, `deferred` or `ignore`, see xsam_core.finite_guard.
        drift_check_every: Compare checksums of the parameters across ranks every that many steps; None never.
        base_options: Keywords of the base optimizer: lr, momentum, ...

    Raises:
        ArgumentError: An option is out of range.
        TypeError: Neither this class nor the base optimizer has an option of that name.
    """

    def __init__(  # noqa: PLR0913 - one keyword per option, as torch.optim does
        self,
        params: ParamsT,
        base_optimizer: type[Optimizer],
        *,
        rho: float = 0.05,
        rho_max: float | None = None,
        rho_warmup_steps: int = 0,
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
        self.ascent_steps = check_count("ascent_steps", ascent_steps)
        check_choice("scope", scope, Scope)
        check_choice("nonfinite", nonfinite, NonFinite)
        if max_grad_norm is not None:
            max_grad_norm = check_real("max_grad_norm", max_grad_norm, low=0.0, open_ends=True)
        if drift_check_every is not None:
            drift_check_every = check_count("drift_check_every", drift_check_every)
        options = {
            "rho": rho,
            "rho_max": rho_max,
            "rho_warmup_steps": rho_warmup_steps,
            "adaptive": adaptive,
            "adaptive_eta": adaptive_eta,
            "perturb": perturb,
        }
        check_group(options)
        options |= {"format_version": FORMAT_VERSION, "step_count": 0, **self._initial_run_state()}
        check_base_optimizer(base_optimizer, options)
        check_options(type(self), base_optimizer, base_options)
        super().__init__(params, options)
        self.base_optimizer = base_optimizer(self.param_groups, **base_options)
        self.defaults = {**self.base_optimizer.defaults, **options}
        self.max_grad_norm = max_grad_norm
        self.drift_check_every = drift_check_every
        self._replicas = Replicas(ModelParts(model), process_group, Scope(scope))
        self._guard = FiniteGuard(NonFinite(nonfinite))
        self._memory = OriginMemory()
        self._telemetry: StepTelemetry | None = None
        self._scaling: LossScaling | None = None
        self._queue: list[Closure] = []
        self._computed: Computed | None = None
        for group in self.param_groups:
            check_group(group)
            check_spelling(group, self.defaults)
        # A base optimizer may have made state already.
        self.state = self.base_optimizer.state
        self._share_with_base()
        self._check_sharding()

    def attach(self, model: nn.Module) -> None:
        """Say which model the closure calls from now on, for example after it was replaced.

        Wrapping it in DDP or calling `fully_shard` on it needs no word: both are found in the next step.

        Raises:
            ArgumentError: The model cannot work with these parameters or options.
        """
        self._replicas.parts = ModelParts(model)
        self._check_sharding()

    @property
    def telemetry(self) -> StepTelemetry | None:
        """Record of the last step; None before the first."""
        return self._telemetry

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, which may set options of ours and of the base optimizer for itself.

        Raises:
            ArgumentError: An option is out of range; the group is not added.
        """
        if "base_optimizer" not in self.__dict__:  # torch's constructor calls this for each group
            super().add_param_group(param_group)
            return
        # The groups are shared, and the base optimizer may have work of its own with a new one.
        self.base_optimizer.add_param_group({**_without_params(self.defaults), **param_group})
        added = self.param_groups[-1]
        try:
            check_group(added)
            check_spelling(added, self.defaults)
        except ValueError:
            del self.param_groups[-1]
            raise
        for key in ("step_count", *self._initial_run_state()):
            added[key] = self.param_groups[0][key]
        # Passes before this one reached them as well, without being asked.
        mark_grads(added["params"])

    @torch.no_grad()
    def step(  # type: ignore[override]
        self,
        closure: Closures | type[NoClosure] | None = NoClosure,
        *,
        search_alpha: bool | None = None,
        search_closure: Closure | None = None,
        weights: Sequence[float] | None = None,
        grad_scaler: GradScaler | None = None,
    ) -> Tensor | None:
        """Take one step and return the loss at the start point, detached.

        Args:
            closure: Runs the forward pass and returns the scalar loss with its graph; it calls neither backward
                nor zero_grad. A sequence has one closure per micro-batch, and every pass accumulates over all.
                Without one, the step runs the closures of `add_closure`, or applies what `backward` computed.
                None is also what torch.distributed.checkpoint gives, with lr 0 and zero gradients, to make a
                base optimizer create its state; that is done, and is no step.
            search_alpha: XSAM only: search alpha in this step, or not; None leaves it to the optimizer's options.
            search_closure: XSAM only: what a search measures at each alpha, if this step searches: the loss of more
                data than the step's, say. It returns a scalar loss, called without gradients. None
                is the step's own loss.
            weights: Share of each micro-batch in the loss, >= 0 and summing to 1; None means equal shares, right
                for mean losses of micro-batches of one size.
            grad_scaler: For fp16. If any pass overflows the step changes nothing; call its `update()` afterwards.

        Raises:
            ArgumentError: `weights` does not fit, a group holds a number that is out of range, or `search_alpha` or
                `search_closure` is of a search that this optimizer does not have.
            ClosureError: There is no closure, it touched gradients, returned no scalar loss with a graph, or reached
                no parameter; gradients of a backward() of the caller's are there, or two orders at once.
            NonFiniteError: A loss or gradient is NaN or infinite (see `nonfinite`) and there is no scaler.
            SparseGradientError: A gradient is sparse.
            ReplicaDriftError: See `drift_check_every`; the step has been taken.
        """
        if self._computed is not None:
            return self._finish_computed(closure)
        if (closure is None or isinstance(closure, type)) and not self._queue:
            if closure is None and self._would_change_nothing():
                self.base_optimizer.step()
                return None
            raise ClosureError(
                "step() needs a closure that runs the forward pass and returns the loss: it goes uphill before it "
                "goes down. In a loop that owns the backward pass, call add_closure(closure) for each micro-batch "
                "instead of loss.backward(), then step()"
            )
        computed = self._compute(closure, search_alpha, weights, grad_scaler, search_closure)
        self._finish(computed)
        return computed.loss

    def add_closure(self, closure: Closure) -> None:
        """Queue the closure of one micro-batch, for loops that own the backward pass.

        The next `backward()` or bare `step()` runs the queued closures, in equal shares, and empties the queue.

        Raises:
            ClosureError: It cannot be called.
        """
        if not callable(closure):
            raise ClosureError(f"add_closure() needs something that can be called, got {type(closure).__name__}")
        self._queue.append(closure)

    @torch.no_grad()
    def backward(
        self,
        closure: Closures | None = None,
        *,
        search_alpha: bool | None = None,
        search_closure: Closure | None = None,
        weights: Sequence[float] | None = None,
        grad_scaler: GradScaler | None = None,
    ) -> Tensor:
        """Do all of a step but the base optimizer's part: leave the update gradient in `.grad`, return the loss.

        It stands where a loop has `loss.backward()`; the loop may then clip and log, and calls `step()`. A
        `zero_grad()` in between drops the step. Arguments and errors are those of `step`; without a closure the
        queued ones run.
        """
        if self._computed is not None:
            raise ClosureError("backward() has computed a step already; call step(), or zero_grad() to drop it")
        if closure is None and not self._queue:
            raise ClosureError("backward() needs a closure, or some that add_closure() has queued")
        self._computed = self._compute(closure, search_alpha, weights, grad_scaler, search_closure)
        return self._computed.loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients, as in torch, and with them a step that `backward` computed and nobody took."""
        self._computed = None
        super().zero_grad(set_to_none)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict()` returned, here or in an older version; training goes on as if never stopped.

        A checkpoint of the plain base optimizer loads too: its momentum is taken over. As in torch, what stands
        in groups is the checkpoint's afterwards: lr, rho, rho_max, rho_warmup_steps, adaptive, perturb. All else
        stays as the constructor was told: ascent_steps, scope, max_grad_norm, gamma, alpha_every and so on.

        Raises:
            CheckpointError: The format is newer than this library, the groups or the base optimizer's state do not
                fit, or an option in it is out of range; nothing has been changed.
        """
        saved = upgraded(state_dict, self.param_groups)
        check_options_fit(saved)
        check_state_fits(self.base_optimizer, self.param_groups, saved)
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
        fresh: dict[str, Any] = {
            "_telemetry": None,
            "_scaling": None,
            "_memory": OriginMemory(),
            "_queue": [],
            "_computed": None,
        }
        return {**kept, **fresh}

    def _finish_computed(self, closure: Closures | type[NoClosure] | None) -> Tensor:
        """Take the step that `backward` has computed."""
        computed, self._computed = self._computed, None
        if computed is None:
            raise ClosureError("backward() has computed no step")
        # Lightning hands a closure that does nothing to every step without one, and expects it to be called.
        if self._queue or (callable(closure) and not isinstance(closure, type) and closure() is not None):
            raise ClosureError("backward() has computed this step already, and there are closures for another one")
        if computed.walk is not None and not all(
            has_gradients([p]) for s in computed.walk.ascent.slices for p in s.params
        ):
            raise ClosureError("the gradients that backward() left in .grad are gone; call step() before clearing them")
        self._finish(computed)
        return computed.loss

    def _would_change_nothing(self) -> bool:
        """Whether the base optimizer's step can only create its state: lr 0, and no gradient but zeros."""
        if any(float(group.get("lr", 0.0)) != 0.0 for group in self.param_groups):
            return False
        params = (p for group in self.param_groups for p in group["params"])
        return not any(plain(p.grad).any() for p in params if p.grad is not None)

    def _share_with_base(self) -> None:
        """Let the base optimizer work on our groups and state; its own hooks for old checkpoints run too."""
        self.base_optimizer.__setstate__({"state": self.state, "param_groups": self.param_groups})
        self.state = self.base_optimizer.state


def _without_params(options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key not in {"params", "param_names"}}
