"""How far a group is moved in one step: its rho and rho_max, after the warm-up of both."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from xsam_core.arguments import check_group


@dataclass(frozen=True, slots=True)
class Radius:
    """Lengths in parameter space that hold for one group in one step.

    Attributes:
        ascent: Total length of the ascent, >= 0.
        probe: Distance from theta_0 at which alpha is probed, >= 0.
    """

    ascent: float
    probe: float


def checked_rho(group: dict[str, Any]) -> float:
    """Return the group's rho; groups are open to anybody, so its numbers are looked at in each step.

    Raises:
        ArgumentError: A number of ours in the group is out of range.
    """
    rho, rho_max, eta = group["rho"], group["rho_max"], group["adaptive_eta"]
    is_fine = (
        (type(rho) is float and 0.0 <= rho < math.inf)
        and (type(eta) is float and 0.0 <= eta < math.inf)
        and (rho_max is None or (type(rho_max) is float and 0.0 < rho_max < math.inf))
        and not group.get("maximize")
    )
    if not is_fine:
        check_group(group)
    checked: float = group["rho"]
    return checked


def warmed_up(group: dict[str, Any], rho: float, step: int) -> Radius:
    """Return both lengths in step number `step`, counted from 0.

    Over `rho_warmup_steps` = n steps they grow in a straight line: step t uses the share (t + 1) / n, step
    n - 1 and all later ones the whole. It depends on the step's number alone, so resuming is exact. A rho_max
    that was given grows along, so that its ratio to rho stays; by default it is 2 * rho, the authors' ratio.

    Args:
        group: Param group with `rho_max` and `rho_warmup_steps`.
        rho: Its rho in this step without the warm-up.
        step: Number of the step.

    Example:
        >>> warmed_up({"rho_max": None, "rho_warmup_steps": 4}, 0.2, step=0)
        Radius(ascent=0.05, probe=0.1)
    """
    num_steps, rho_max = group["rho_warmup_steps"], group["rho_max"]
    share = (step + 1) / num_steps if step + 1 < num_steps else 1.0
    ascent = rho * share
    return Radius(ascent, 2 * ascent if rho_max is None else rho_max * share)
