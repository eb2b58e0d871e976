"""Runs the user's closures: forward and backward over all micro-batches, or forward alone for a probe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from xsam_core.batch_norm import frozen_running_stats
from xsam_core.distributed import Replicas
from xsam_core.errors import ArgumentError, ClosureError
from xsam_core.parameters import clear_grads, has_gradients
from xsam_core.scaling import LossScaling
from xsam_core.types import Closure, Closures


class Passes:
    """The passes of one step; each visits all micro-batches. A backward pass leaves gradients in `.grad`.

    Args:
        closures: One closure, or one per micro-batch.
        weights: Share of each micro-batch in the loss; None gives each the same.
        param_groups: Whose gradients are cleared before a backward pass.
        replicas: How this rank's passes meet those of other ranks, and the model.
        scaling: Loss scaling for fp16; None for every other precision.
        search_closure: What a probe measures; None is the loss of `closures`.

    Attributes:
        first_loss: Loss of the first pass, at theta_0.

    Raises:
        ArgumentError: `weights` does not fit the closures.
        ClosureError: There is no closure.
    """

    def __init__(
        self,
        closures: Closures,
        weights: Sequence[float] | None,
        param_groups: Sequence[dict[str, Any]],
        replicas: Replicas,
        scaling: LossScaling | None,
        search_closure: Closure | None = None,
    ) -> None:
        self._closures = [closures] if callable(closures) else list(closures)
        self._weights = _checked_weights(weights, len(self._closures))
        self.params = [p for group in param_groups for p in group["params"]]
        self._replicas = replicas
        self._scaling = scaling
        self._probed = [(search_closure, 1.0)] if search_closure else [*zip(self._closures, self._weights, strict=True)]
        self.first_loss: Tensor | None = None

    def backward(self) -> Tensor:
        """Run forward and backward over all micro-batches and return the loss, detached.

        A loss that is not finite makes every gradient NaN, even where its graph would not: averaged
        gradients then tell all ranks, without a collective of its own.
        """
        is_first_pass = self.first_loss is None
        clear_grads(self.params)
        self._forget_old_weights()
        losses = []
        last = len(self._closures) - 1
        with self._stats_context(), torch.enable_grad():
            for index, (closure, weight) in enumerate(zip(self._closures, self._weights, strict=True)):
                is_first = is_first_pass and index == 0
                with self._replicas.pass_context(is_first=is_first, syncs_gradients=index == last):
                    loss = self._forward(closure, is_first_closure=index == 0)
                    scaled = loss if self._scaling is None else self._scaling.scale(loss)
                    plain_loss = loss.detach()
                    _backward(scaled, _seed(plain_loss, weight))
                losses.append(plain_loss if weight == 1.0 else plain_loss * weight)
        if self._replicas.averages_passes:
            self._replicas.average_gradients(self.trained_params(), [])
        if self._scaling is not None:
            self._scaling.unscale()
        total = sum(losses[1:], start=losses[0])
        if is_first_pass:
            self.first_loss = total
            self._replicas.parts.keep_buffers()
        return total

    def _forward(self, closure: Closure, *, is_first_closure: bool) -> Tensor:
        """Return the closure's loss; gradients are the optimizer's business, so it must not have touched them."""
        before = None if is_first_closure else [(p.grad, _version(p.grad)) for p in self.params]
        loss = closure()
        if before is None:
            is_touched = has_gradients(self.params)
        else:
            # `is`: comparing tensors with == would compare their elements.
            is_touched = any(
                p.grad is not grad or _version(p.grad) != version
                for p, (grad, version) in zip(self.params, before, strict=True)
            )
        if is_touched:
            raise ClosureError(
                "the closure changed gradients: it must only run the forward pass and return the loss; leave "
                "backward() and zero_grad() to the optimizer"
            )
        return checked_loss(loss)

    def trained_params(self) -> list[Tensor]:
        """Return the parameters that are not frozen, the same list on every rank."""
        return [p for p in self.params if p.requires_grad]

    def probe(self) -> Tensor:
        """Return the loss at the present parameters, without gradients, statistics or collectives."""
        self._forget_old_weights()
        with self._stats_context(), torch.no_grad(), self._replicas.probe_context():
            losses = [checked_scalar(closure()) * weight for closure, weight in self._probed]
        return sum(losses[1:], start=losses[0])

    def _stats_context(self) -> AbstractContextManager[None]:
        layers = self._replicas.parts.norm_layers
        if self.first_loss is None or not layers:
            return nullcontext()
        return frozen_running_stats(layers)

    def _forget_old_weights(self) -> None:
        """Drop copies of the parameters that were made before they moved.

        A caller's autocast region around the whole step keeps casts of the weights, and FSDP2 keeps
        gathered parameters after a forward pass without a backward.
        """
        torch.clear_autocast_cache()
        self._replicas.reshard()


def _backward(loss: Tensor, seed: Tensor | None) -> None:
    """Run backward.

    Raises:
        ClosureError: The closure has done it already and cleared the gradients.
    """
    try:
        torch.autograd.backward(loss, seed)
    except RuntimeError as e:
        if "backward through the graph a second time" not in str(e):
            raise
        raise ClosureError(
            "the closure's graph has been used up: it must return the loss of a fresh forward pass, and leave "
            "backward() to the optimizer"
        ) from e


def _version(grad: Tensor | None) -> int:
    return -1 if grad is None else grad._version


def _seed(loss: Tensor, weight: float) -> Tensor | None:
    """Return what backward starts from: `weight`, or NaN for a loss that is not finite; a device need not wait.

    None stands for 1, as in `backward()`.
    """
    if loss.is_cpu:
        is_finite = math.isfinite(loss.item())
        if weight == 1.0 and is_finite:
            return None
        return torch.scalar_tensor(weight if is_finite else math.nan, dtype=loss.dtype)
    return torch.mul(loss, 0.0).add_(weight)


def checked_scalar(loss: object) -> Tensor:
    """Return `loss` if it is a tensor with one element.

    Raises:
        ClosureError: It is not.
    """
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        shown = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ClosureError(f"the closure must return the scalar loss as a tensor, got {shown}")
    return loss if loss.dim() == 0 else loss.reshape(())


def checked_loss(loss: object) -> Tensor:
    """Return `loss` if backward can start from it.

    Raises:
        ClosureError: It is no scalar tensor, or has no graph.
    """
    scalar = checked_scalar(loss)
    if not scalar.requires_grad:
        raise ClosureError(
            "the closure returned a loss without a graph; it must run the forward pass with gradients enabled, "
            "return the loss undetached, and leave backward() to the optimizer"
        )
    return scalar


def _checked_weights(weights: Sequence[float] | None, num_closures: int) -> list[float]:
    if num_closures == 0:
        raise ClosureError("step() got an empty sequence of closures; it needs at least one")
    if weights is None:
        return [1.0 / num_closures] * num_closures
    if len(weights) != num_closures:
        raise ArgumentError(f"weights must have one number per closure: got {len(weights)} for {num_closures}")
    if not all(math.isfinite(w) and w >= 0 for w in weights) or not math.isclose(sum(weights), 1.0, rel_tol=1e-6):
        raise ArgumentError(f"weights must be >= 0 and sum to 1, got {list(weights)}")
    return [float(w) for w in weights]
