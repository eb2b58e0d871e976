"""Code of the team's own: imported by name, out of the job's bundle or from packages that the operator allowed."""

import importlib
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from xsam.services.specs.model import package_of
from xsam.workers.messages import RankContext
from xsam.workers.sdk.task import FunctionTask
from xsam.workers.training.errors import TargetError

_MODEL_PACKAGES = ("transformers",)
"""Packages beside the job's code whose classes it may name: models and collators are used as they are."""


def load_target(target: str, context: RankContext, *, needs_call: bool = False) -> Any:
    """Return what `package.module:name` names.

    Raises:
        TargetError: it can't be imported, is not from where the team's code may come, or is not callable as it must be.
    """
    module_name, _, name = target.partition(":")
    package = package_of(target)
    if context.code_dir is None and package not in context.allowed_packages:
        allowed = ", ".join(context.allowed_packages) or "none"
        raise TargetError(
            f"target {target}: package {package} is not allowed (allowed: {allowed}); "
            "the operator lists packages in XSAM_TRAINING__ALLOWED_PACKAGES"
        )
    try:
        module = importlib.import_module(module_name)
    except ImportError as e:
        raise TargetError(f"target {target} can't be imported on this worker: {e}") from e
    try:
        found = getattr(module, name)
    except AttributeError as e:
        similar = get_close_matches(name, dir(module), n=1)
        hint = f"; did you mean {similar[0]!r}?" if similar else ""
        raise TargetError(f"target {target}: module {module_name} has no {name!r}{hint}") from e
    if needs_call and not callable(found):
        raise TargetError(f"target {target} is a {type(found).__name__}; it must be callable")
    _check_origin(target, module, found, package, context)
    return found


def _check_origin(target: str, module: ModuleType, found: Any, package: str, context: RankContext) -> None:
    """Refuse what the module has merely imported: an allowed package must not open all of Python."""
    if context.code_dir is not None and package in _MODEL_PACKAGES:
        return
    if context.code_dir is not None and package not in context.allowed_packages:
        origin = getattr(module, "__file__", None)
        if origin is None or not Path(origin).resolve().is_relative_to(context.code_dir.resolve()):
            raise TargetError(f"target {target} lies in {origin or 'no file'}, not in the job's code")
        return
    home = getattr(found, "__module__", None) or type(found).__module__
    if package_of(f"{home}:") != package and not isinstance(found, FunctionTask):
        raise TargetError(
            f"target {target} is made in {home}, which {package} has only imported; name what is defined in {package}"
        )
