"""Finds the optimizer inside what a trainer has put around it."""

from __future__ import annotations

from xsam_core.errors import ArgumentError
from xsam_core.optimizer import SharpnessAware


def family_member(optimizer: object) -> SharpnessAware:
    """Return the optimizer of the family that `optimizer` is or wraps.

    Raises:
        ArgumentError: There is none.
    """
    inner: object = optimizer
    while inner is not None and not isinstance(inner, SharpnessAware):
        inner = getattr(inner, "optimizer", None)
    if inner is None:
        raise ArgumentError(f"the optimizer must be one of xsam_core, got {type(optimizer).__name__}")
    return inner
