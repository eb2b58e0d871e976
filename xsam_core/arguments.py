"""Checks of optimizer arguments: each error says which option, which value it got, and what is allowed."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any

from torch.optim import LBFGS, Optimizer, SparseAdam

from xsam_core.errors import ArgumentError

# A name this much like one of ours is a slip of the pen, not a key of the caller's own.
_LIKENESS = 0.85


def check_real(name: str, value: object, *, low: float, high: float = math.inf, open_ends: bool = False) -> float:
    """Return `value` as a float; refuse anything but a finite number in [low, high], or (low, high) with `open_ends`.

    numpy's scalars are numbers too, but no checkpoint holds them, so a float is what should be kept.

    Raises:
        ArgumentError: The value is outside.

    Example:
        >>> check_real("rho", -1, low=0.0)
        Traceback (most recent call last):
        xsam_core.errors.ArgumentError: rho must be a finite number >= 0.0, got -1
    """
    if not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value):
        number = float(value)
        if low < number < high if open_ends else low <= number <= high:
            return number
    allowed = f"{'>' if open_ends else '>='} {low}"
    if high < math.inf:
        allowed += f" and {'<' if open_ends else '<='} {high}"
    raise ArgumentError(f"{name} must be a finite number {allowed}, got {value!r}")


def check_count(name: str, value: object, *, low: int = 1) -> int:
    """Return `value` as an int; refuse anything but a whole number of at least `low`.

    Raises:
        ArgumentError: It is not one.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < low:
        raise ArgumentError(f"{name} must be a whole number >= {low}, got {value!r}")
    return int(value)


def check_flag(name: str, value: object) -> bool:
    """Return `value` as a bool; refuse anything but a truth value, Python's or numpy's.

    Raises:
        ArgumentError: It is not one.
    """
    plain = value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value
    if not isinstance(plain, bool):
        raise ArgumentError(f"{name} must be True or False, got {value!r}")
    return plain


def check_choice(name: str, value: object, allowed: Iterable[str]) -> None:
    """Refuse anything but one of the names in `allowed`.

    Raises:
        ArgumentError: It is not one of them.
    """
    names = [str(a) for a in allowed]
    if value not in names:
        raise ArgumentError(f"{name} must be one of {', '.join(names)}, got {value!r}")


def check_group(group: dict[str, Any]) -> None:
    """Refuse a param group whose options are out of range, and make the numbers of ours floats.

    Raises:
        ArgumentError: An option is out of range.
    """
    group["rho"] = check_real("rho", group["rho"], low=0.0)
    group["adaptive_eta"] = check_real("adaptive_eta", group["adaptive_eta"], low=0.0)
    group["rho_warmup_steps"] = check_count("rho_warmup_steps", group["rho_warmup_steps"], low=0)
    if group["rho_max"] is not None:
        group["rho_max"] = check_real("rho_max", group["rho_max"], low=0.0, open_ends=True)
    for name in ("adaptive", "perturb"):
        group[name] = check_flag(name, group[name])
    if group.get("maximize"):
        raise ArgumentError("maximize must be False: ascent looks for a higher loss; return the negated objective")
    if group.get("differentiable"):
        raise ArgumentError("differentiable must be False: a step moves the parameters in place, without a graph")


def check_spelling(group: dict[str, Any], known: Iterable[str]) -> None:
    """Refuse a key of a param group that nobody knows and that looks like an option.

    Other unknown keys are the caller's own, as in torch.

    Raises:
        ArgumentError: Such a key is there.
    """
    names = set(known)
    for key in group.keys() - names - {"params", "param_names"}:
        similar = get_close_matches(key, names, n=1, cutoff=_LIKENESS)
        if similar:
            raise ArgumentError(f"a param group has the key {key!r}, which means nothing; did you mean {similar[0]!r}?")


def check_options(ours: type, base_optimizer: type[Optimizer], options: Iterable[str]) -> None:
    """Refuse keywords that neither class has.

    Raises:
        TypeError: Names the keyword, both classes and what may have been meant.
    """
    parameters = inspect.signature(base_optimizer).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return
    unknown = [name for name in options if name not in parameters]
    if not unknown:
        return
    own = {name for cls in ours.__mro__ if "__init__" in vars(cls) for name in inspect.signature(cls).parameters}
    similar = get_close_matches(unknown[0], sorted(own | set(parameters)), n=1)
    hint = f"; did you mean {similar[0]!r}?" if similar else ""
    raise TypeError(
        f"neither {ours.__name__} nor its base optimizer {base_optimizer.__name__} has an option {unknown[0]!r}{hint}"
    )


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
