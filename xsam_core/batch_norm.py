"""Keeps running statistics of normalisation layers still while a model runs in training mode."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

_NORMS = (_BatchNorm, _InstanceNorm)


def tracking_modules(model: nn.Module) -> list[nn.Module]:
    """Return the layers of `model` that keep running statistics (BatchNorm, SyncBatchNorm, InstanceNorm)."""
    return [m for m in model.modules() if keeps_running_stats(m)]


def keeps_running_stats(module: nn.Module) -> bool:
    """Whether a module is a normalisation layer that updates running statistics in training mode."""
    return isinstance(module, _NORMS) and bool(module.track_running_stats)


@contextmanager
def frozen_running_stats(layers: nn.Module | Iterable[nn.Module]) -> Iterator[None]:
    """Run forward passes in training mode that leave running mean, variance and the batch counter alone.

    BatchNorm normalises with batch statistics in training mode whether or not it tracks them, so tracking
    is switched off. Setting its momentum to 0 instead would still count `num_batches_tracked`, which
    changes the statistics of layers with `momentum=None`. InstanceNorm has no counter and updates
    regardless of the flag, so there the momentum is 0.

    Args:
        layers: A model, or the layers themselves (see `tracking_modules`).

    Example:
        >>> import torch
        >>> norm = nn.BatchNorm1d(2)
        >>> with frozen_running_stats(norm):
        ...     _ = norm(torch.tensor([[1.0, 2.0], [3.0, 5.0]]))
        >>> norm.num_batches_tracked.item(), norm.running_mean.tolist()
        (0, [0.0, 0.0])
    """
    modules = tracking_modules(layers) if isinstance(layers, nn.Module) else list(layers)
    momenta = [m.momentum for m in modules if isinstance(m, _InstanceNorm)]
    for module in modules:
        if isinstance(module, _InstanceNorm):
            module.momentum = 0.0
        else:
            module.track_running_stats = False  # type: ignore[assignment]
    try:
        yield
    finally:
        restored = iter(momenta)
        for module in modules:
            if isinstance(module, _InstanceNorm):
                module.momentum = next(restored)
            else:
                module.track_running_stats = True  # type: ignore[assignment]
