"""Callables of the team's own: imported by name, from packages that the operator allowed."""

import importlib
from collections.abc import Callable
from typing import Any

from xsam.services.specs.model import package_of
from xsam.workers.messages import RankContext
from xsam.workers.training.errors import TargetError


def load_target(target: str, context: RankContext) -> Callable[..., Any]:
    """Return the callable that `package.module:factory` names.

    Raises:
        TargetError: its package is not allowed, it can't be imported, or it is not callable.
    """
    package = package_of(target)
    if package not in context.allowed_packages:
        allowed = ", ".join(context.allowed_packages) or "none"
        raise TargetError(
            f"target {target}: package {package} is not allowed (allowed: {allowed}); "
            "the operator lists packages in XSAM_TRAINING__ALLOWED_PACKAGES"
        )
    module_name, _, name = target.partition(":")
    try:
        factory = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as e:
        raise TargetError(f"target {target} can't be imported on this worker: {e}") from e
    if not callable(factory):
        raise TargetError(f"target {target} is a {type(factory).__name__}; it must be callable")
    return factory
