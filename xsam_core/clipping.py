"""Clipping of the update gradient by its norm over all parameters."""

from __future__ import annotations

from collections.abc import Sequence

from xsam_core.ascent import gradient_norm, on_device_of
from xsam_core.functional import at_most, scale_
from xsam_core.parameters import ParamSlice

# As torch.nn.utils.clip_grad_norm_.
_CLIP_EPS = 1e-6


def clip_(slices: Sequence[ParamSlice], max_norm: float) -> None:
    """Shrink the gradients of `slices` together to a norm of at most `max_norm`, over all shards."""
    factor = at_most(max_norm / (gradient_norm(slices) + _CLIP_EPS), 1.0)
    for piece in slices:
        scale_(piece.grads, on_device_of(piece, factor))
