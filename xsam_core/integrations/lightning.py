"""A mixin that makes a LightningModule train with an optimizer of the family; needs `lightning`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningModule
from torch import Tensor

from xsam_core.errors import ArgumentError
from xsam_core.integrations.wrapped import family_member
from xsam_core.optimizer import SharpnessAware


class SharpnessAwareMixin(LightningModule):
    """Put before an ordinary LightningModule whose `configure_optimizers` returns one optimizer of the family.

    The module's own `training_step(batch, batch_idx)`, which returns the loss, is the closure: it runs k + 1 times
    and more, and what it logs is kept from the first time only. Lightning's manual optimization is used, so
    clipping is the optimizer's `max_grad_norm` and accumulation is the attribute below; Lightning itself refuses
    its own options for both. Schedulers are stepped as `configure_optimizers` says; hooks, precision (32 or
    bf16), checkpoints and resuming are Lightning's.

    Attributes:
        num_micro_batches: Batches that make one step, >= 1; the last step of an epoch may have fewer.

    Raises:
        TypeError: The class has a `training_step` in front of this one, so that nobody would take a step.
        ArgumentError: fp16 or several devices are asked for, or there is not one optimizer of the family.

    Example::

        class Robust(SharpnessAwareMixin, Classifier):
            num_micro_batches = 4

            def configure_optimizers(self):
                return XSAM(self.parameters(), torch.optim.SGD, rho=0.05, model=self, lr=0.1)
    """

    num_micro_batches: int = 1
    _is_first_look: bool = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Look whether the order of the bases lets the mixin work."""
        super().__init_subclass__(**kwargs)
        if cls.training_step is not SharpnessAwareMixin.training_step:
            raise TypeError(
                f"{cls.__name__}.training_step hides the one that takes the steps; leave it in a module of its own "
                f"and write class {cls.__name__}(SharpnessAwareMixin, ThatModule)"
            )

    @property
    def automatic_optimization(self) -> bool:
        """False: the optimizer owns the backward pass."""
        return False

    @automatic_optimization.setter
    def automatic_optimization(self, value: bool) -> None:
        if value:
            raise ArgumentError("automatic_optimization must be False: the optimizer owns the backward pass")

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        """Queue a batch; with the last one of a step, take the step and return its loss."""
        member = self._member()
        member.add_closure(self._closure(batch, batch_idx))
        if (batch_idx + 1) % self.num_micro_batches and not self.trainer.is_last_batch:
            return None
        loss = member.backward()
        # Through Lightning's wrapper, so that its step counter, hooks and profiler see it.
        self.optimizers().step()  # type: ignore[union-attr]
        self._step_schedulers("step", self.trainer.global_step)
        return loss

    def on_train_epoch_end(self) -> None:
        """Step the schedulers whose interval is the epoch."""
        super().on_train_epoch_end()
        self._step_schedulers("epoch", self.current_epoch + 1)

    def log(self, *args: Any, **kwargs: Any) -> None:
        """Log as usual, but not from the passes at other points than theta_0."""
        if self._is_first_look:
            super().log(*args, **kwargs)

    def _closure(self, batch: Any, batch_idx: int) -> Callable[[], Tensor]:
        step = super().training_step
        arguments = (batch, batch_idx)[: len(inspect.signature(step).parameters)]
        num_calls = 0

        def closure() -> Tensor:
            nonlocal num_calls
            num_calls += 1
            self._is_first_look = num_calls == 1
            try:
                output: Any = step(*arguments)
            finally:
                self._is_first_look = True
            loss: Tensor = output["loss"] if isinstance(output, dict) else output
            return loss

        return closure

    def _member(self) -> SharpnessAware:
        optimizer = self.optimizers(use_pl_optimizer=False)
        if isinstance(optimizer, list):
            raise ArgumentError(f"configure_optimizers must return one optimizer, got {len(optimizer)}")
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None:
            raise ArgumentError("precision must not be 16-mixed: its scaler unscales once per step; use bf16-mixed")
        if self.trainer.world_size > 1:
            raise ArgumentError("devices must be 1: Lightning runs a manual step inside DDP's forward pass")
        return family_member(optimizer)

    def _step_schedulers(self, interval: str, count: int) -> None:
        for config in self.trainer.lr_scheduler_configs:
            if config.interval == interval and count % config.frequency == 0:
                metric = self.trainer.callback_metrics.get(config.monitor) if config.monitor else None
                self.lr_scheduler_step(config.scheduler, metric)
