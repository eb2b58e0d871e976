"""Decayed usage: what is left of what was used, as pure arithmetic.

A job that holds `rate` resource units adds `rate` per second to the usage of its team and user, and whatever was used
counts half after each half-life: usage at t = integral of rate(s) * 2^(-(t - s) / half_life) ds. Decay is linear, so
the contribution of each attempt can be computed alone, when it ends, and added to one stored pair (value, as_of):

    value(t) = value(as_of) * 2^(-(t - as_of) / half_life)
    after an attempt [start, end]: (value(end) + contribution(rate, start, end), end)

which is one UPDATE per ended attempt and needs no periodic job. Running attempts are not in the stored value; the
scheduling policy adds their contribution up to now itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from xsam.services.settings import SchedulingSettings


@dataclass(frozen=True, slots=True)
class DecayedUsage:
    """Decayed resource-seconds of the attempts that ended, true at `as_of`."""

    value_resource_s: float
    as_of: datetime


@dataclass(frozen=True, slots=True)
class TeamShare:
    """A team's claim: its weight, and what it and its users used (running attempts not included)."""

    weight: float = 1.0
    usage: DecayedUsage | None = None
    users: Mapping[str, DecayedUsage] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a weight that cannot divide."""
        if self.weight <= 0:
            raise ValueError(f"weight is {self.weight!r}, allowed: above 0")


def decay(value_resource_s: float, elapsed_s: float, half_life_s: float) -> float:
    """Return what is left of a usage after `elapsed_s`; time that runs backwards changes nothing."""
    return value_resource_s * math.exp2(-max(0.0, elapsed_s) / half_life_s)


def contribution(rate: float, duration_s: float, half_life_s: float) -> float:
    """Return the decayed resource-seconds, at its end, of holding `rate` units for `duration_s`.

    The closed form of the integral: rate * tau * (1 - 2^(-duration / half_life)), tau = half_life / ln 2; it grows
    like rate * duration at first and never beyond rate * tau.
    """
    exponent = max(0.0, duration_s) * math.log(2.0) / half_life_s
    return -rate * half_life_s / math.log(2.0) * math.expm1(-exponent)


def usage_at(usage: DecayedUsage | None, now: datetime, half_life_s: float) -> float:
    """Return the stored usage, decayed to `now`."""
    if usage is None:
        return 0.0
    return decay(usage.value_resource_s, (now - usage.as_of).total_seconds(), half_life_s)


def add_attempt(
    usage: DecayedUsage | None, *, rate: float, started_at: datetime, ended_at: datetime, half_life_s: float
) -> DecayedUsage:
    """Return the usage with one ended attempt added.

    Attempts may be added in any order: one that ended before `as_of` is decayed to it.
    """
    added = contribution(rate, (ended_at - started_at).total_seconds(), half_life_s)
    if usage is None:
        return DecayedUsage(added, ended_at)
    as_of = max(usage.as_of, ended_at)
    late_s = (as_of - ended_at).total_seconds()
    return DecayedUsage(usage_at(usage, as_of, half_life_s) + decay(added, late_s, half_life_s), as_of)


def resource_rate(gpus: float, cpus: float, numbers: SchedulingSettings) -> float:
    """Return the resource units that an allocation uses per second."""
    return gpus * numbers.gpu_weight + cpus * numbers.cpu_weight
