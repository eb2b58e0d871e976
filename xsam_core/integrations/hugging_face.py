"""A Hugging Face Trainer that trains with an optimizer of the family; needs `transformers`.

The Trainer keeps its accumulation, clipping, logging, schedule, saving and resuming: where it would call backward
on the last micro-batch of a step, the optimizer runs its k + 1 passes instead and leaves the update gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import Trainer

from xsam_core.errors import ArgumentError
from xsam_core.integrations.wrapped import family_member
from xsam_core.optimizer import SharpnessAware
from xsam_core.xsam import XSAM


class SharpnessAwareTrainer(Trainer):
    """Trainer whose optimizer is one of the family over the one that TrainingArguments name.

    Args: those of Trainer, and:
        sharpness: Class of the family.
        sharpness_options: Its keywords, for example {"rho": 0.05}; lr, weight decay and the other options of the base
            optimizer come from TrainingArguments, and so does max_grad_norm, which clips the update gradient.

    The loss that is logged is that at theta_0, as usual. Hand in an optimizer of your own with `optimizers=`; it
    has to be one of the family.

    Raises:
        ArgumentError: fp16 is asked for (its scaler unscales once per step; use bf16), DeepSpeed is, or the
            optimizer handed in is another one.

    Example::

        trainer = SharpnessAwareTrainer(
            model=model, args=arguments, train_dataset=data, sharpness=XSAM, sharpness_options={"rho": 0.05}
        )
        trainer.train()
    """

    def __init__(
        self,
        *args: Any,
        sharpness: type[SharpnessAware] = XSAM,
        sharpness_options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self._sharpness = sharpness
        self._sharpness_options = dict(sharpness_options or {})
        super().__init__(*args, **kwargs)
        if self.args.fp16 or self.is_deepspeed_enabled:
            raise ArgumentError("fp16 and DeepSpeed must be off: both own the backward pass; use bf16, DDP or FSDP2")
        if self.optimizer is not None and not isinstance(self.optimizer, SharpnessAware):
            raise ArgumentError(f"optimizers must hold one of xsam_core, got {type(self.optimizer).__name__}")

    def create_optimizer(self, model: nn.Module | None = None) -> Optimizer:
        """Wrap the class that TrainingArguments name; groups and options are the Trainer's."""
        wanted: Any = self.model if model is None else model
        if self.optimizer is None:
            if self.optimizer_cls_and_kwargs is None:
                base, options = self.get_optimizer_cls_and_kwargs(self.args, wanted)
            else:
                base, options = self.optimizer_cls_and_kwargs
            # Trainer takes a keyword `model` for parameters, so the model is attached afterwards.
            ours = {**options, **self._sharpness_options, "base_optimizer": base}
            self.optimizer_cls_and_kwargs = (self._sharpness, ours)
        created: Optimizer = super().create_optimizer(model)
        family_member(created).attach(wanted)
        return created

    def training_step(
        self, model: nn.Module, inputs: dict[str, Tensor | Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Queue a micro-batch; with the last one of a step, run all passes and return the loss of the step."""
        model.train()
        prepared = self._prepare_inputs(inputs)
        num_micro_batches = self.current_gradient_accumulation_steps

        def closure() -> Tensor:
            with self.compute_loss_context_manager():
                loss: Any = self.compute_loss(model, prepared, num_items_in_batch=num_items_in_batch)
            mean: Tensor = loss.mean() if self.args.n_gpu > 1 else loss
            # The optimizer takes equal shares; a loss per item of the whole step is a share already.
            return mean * num_micro_batches if self._is_share(num_items_in_batch) else mean

        optimizer = family_member(self.optimizer)
        optimizer.add_closure(closure)
        if not self.accelerator.sync_gradients:
            return torch.zeros((), device=self.args.device)
        return optimizer.backward()

    def _is_share(self, num_items_in_batch: Tensor | int | None) -> bool:
        """Whether losses are divided by the items of all micro-batches of a step, as in Trainer.training_step."""
        told: bool | None = getattr(self, "loss_is_scaled_for_ga", None)
        if told is not None:
            return told
        is_by_model = self.model_accepts_loss_kwargs and num_items_in_batch is not None
        return is_by_model or self.compute_loss_func is not None
