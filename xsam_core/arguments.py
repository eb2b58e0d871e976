"""Checks of optimizer arguments: each error says which option, which value it got, and what is allowed."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from typing import Any

from torch.optim import LBFGS, Optimizer, SparseAdam

from xsam_core.errors import ArgumentError


def check_real(name: str, value: object, *, low: float, high: float = math.inf, open_ends: bool = False) -> None:
    """Refuse anything but a finite number in [low, high], or (low, high) with `open_ends`.

    Raises:
        ArgumentError: The value is outside.

    Example:
        >>> check_real("rho", -1, low=0.0)
        Traceback (most recent call last):
        xsam_core.errors.ArgumentError: rho must be a finite number >= 0.0, got -1
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if is_number and (low < value < high if open_ends else low <= value <= high):  # type: ignore[operator]
        return
    allowed = f"{'>' if open_ends else '>='} {low}"
    if high < math.inf:
        allowed += f" and {'<' if open_ends else '<='} {high}"
    raise ArgumentError(f"{name} must be a finite number {allowed}, got {value!r}")


def check_count(name: str, value: object, *, low: int = 1) -> None:
    """Refuse anything but a whole number of at least `low`.

    Raises:
        ArgumentError: It is not one.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise ArgumentError(f"{name} must be a whole number >= {low}, got {value!r}")


def check_choice(name: str, value: object, allowed: Iterable[str]) -> None:
    """Refuse anything but one of the names in `allowed`.

    Raises:
        ArgumentError: It is not one of them.
    """
    names = [str(a) for a in allowed]
    if value not in names:
        raise ArgumentError(f"{name} must be one of {', '.join(names)}, got {value!r}")


def check_group(group: dict[str, Any]) -> None:
    """Refuse a param group whose options of ours are out of range.

    Raises:
        ArgumentError: An option is out of range.
    """
    check_real("rho", group["rho"], low=0.0)
    check_real("adaptive_eta", group["adaptive_eta"], low=0.0)
    if group["rho_max"] is not None:
        check_real("rho_max", group["rho_max"], low=0.0, open_ends=True)
    for name in ("adaptive", "perturb"):
        if not isinstance(group[name], bool):
            raise ArgumentError(f"{name} must be True or False, got {group[name]!r}")
    if group.get("maximize"):
        raise ArgumentError("maximize must be False: ascent looks for a higher loss; return the negated objective")


def check_base_optimizer(base_optimizer: object, our_keys: Iterable[str]) -> None:
    """Refuse anything but a class of optimizer that steps from dense gradients alone.

    Args:
        base_optimizer: What the caller passed.
        our_keys: Group keys with a meaning of ours, which the base optimizer must not read as its own.

    Raises:
        ArgumentError: It is no such class, or gives one of the keys another meaning.
    """
    if not isinstance(base_optimizer, type) or not issubclass(base_optimizer, Optimizer):
        raise ArgumentError(f"base_optimizer must be a class like torch.optim.SGD, got {base_optimizer!r}")
    if issubclass(base_optimizer, LBFGS | SparseAdam):
        raise ArgumentError(
            f"base_optimizer must step from dense gradients without a closure, got {base_optimizer.__name__}"
        )
    taken = sorted(set(our_keys) & set(inspect.signature(base_optimizer).parameters))
    if taken:
        raise ArgumentError(
            f"base_optimizer cannot be {base_optimizer.__name__}, whose own option {taken[0]} means something else here"
        )
