"""Clipping of the update gradient by its norm over all parameters."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from xsam_core.ascent import on_device_of, sum_up
from xsam_core.functional import host_scalar, scale_, sum_of_squares
from xsam_core.parameters import ParamSlice

# As torch.nn.utils.clip_grad_norm_.
_CLIP_EPS = 1e-6


def clip_(slices: Sequence[ParamSlice], max_norm: float, zero: Tensor) -> None:
    """Shrink the gradients of `slices` together to a norm of at most `max_norm`, over all shards."""
    norm = sum_up(slices, lambda piece: sum_of_squares(piece.grads), zero).sqrt()
    factor = host_scalar(torch.clamp(max_norm / (norm + _CLIP_EPS), max=1.0))
    for piece in slices:
        scale_(piece.grads, on_device_of(piece, factor))
