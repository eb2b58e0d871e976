"""A training loop of Accelerate, with one call for `accelerator.backward`; needs `accelerate`.

The recipe::

    optimizer = XSAM(model.parameters(), torch.optim.AdamW, model=model, lr=1e-3)
    model, optimizer, loader, scheduler = accelerator.prepare(model, optimizer, loader, scheduler)
    for inputs, targets in loader:
        with accelerator.accumulate(model):
            loss = backward(accelerator, optimizer, lambda x=inputs, y=targets: criterion(model(x), y))
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from xsam_core.errors import ArgumentError
from xsam_core.integrations.wrapped import family_member
from xsam_core.types import Closure


class _Accelerator(Protocol):
    """What is needed of accelerate.Accelerator."""

    scaler: object

    @property
    def sync_gradients(self) -> bool:
        """Whether this micro-batch is the last one of a step."""


def backward(accelerator: _Accelerator, optimizer: object, closure: Closure) -> Tensor | None:
    """Queue a micro-batch; with the last one of a step run all passes, which leaves the update gradient in `.grad`.

    Args:
        accelerator: The accelerate.Accelerator; it says which micro-batch is the last one.
        optimizer: What `accelerator.prepare` returned.
        closure: Runs the forward pass of the micro-batch and returns its mean loss, not divided by anything. It
            is called later than the loop goes on, so bind its data as the recipe does.

    Returns:
        The loss of the step at theta_0, detached, or None for a micro-batch that is not the last one.

    Raises:
        ArgumentError: The optimizer is not of the family, or fp16's scaler is in use.
    """
    if accelerator.scaler is not None:
        raise ArgumentError("mixed_precision must not be fp16: its scaler unscales once per step; use bf16")
    member = family_member(optimizer)
    member.add_closure(closure)
    return member.backward() if accelerator.sync_gradients else None
