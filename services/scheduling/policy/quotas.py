"""What each team may still start: its quota, less what runs, what this plan starts, and what it keeps for a job ahead.

Amounts are in the integer steps of `capacity`; a limit that is not set is infinity.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from xsam.services.scheduling.policy.capacity import UNITS, Shape, to_units
from xsam.services.scheduling.policy.types import RunningJob
from xsam.services.teams.quota import TeamQuota


class Amount(NamedTuple):
    """GPUs, CPUs and running jobs: of a request, a limit, or what is left."""

    gpus: float
    cpus: float
    jobs: float

    def covers(self, other: Amount) -> bool:
        """Return whether `other` fits; what it does not ask for cannot stop it, even where less than 0 is left."""
        return all(need <= 0 or need <= have for have, need in zip(self, other, strict=True))

    def minus(self, other: Amount) -> Amount:
        """Return what is left; below 0 where a quota was lowered, or a job ahead needs more than there is."""
        return Amount(self.gpus - other.gpus, self.cpus - other.cpus, self.jobs - other.jobs)

    def plus(self, other: Amount) -> Amount:
        """Return the sum."""
        return Amount(self.gpus + other.gpus, self.cpus + other.cpus, self.jobs + other.jobs)

    def overlap(self, other: Amount) -> Amount:
        """Return what both have."""
        return Amount(min(self.gpus, other.gpus), min(self.cpus, other.cpus), min(self.jobs, other.jobs))


_NOTHING = Amount(0, 0, 0)
_UNLIMITED = Amount(math.inf, math.inf, math.inf)


def amount_of(shape: Shape) -> Amount:
    """Return what one job of this shape takes from its team's quota."""
    return Amount(shape.num_workers * shape.gpus, shape.num_workers * shape.cpus, 1)


def amount_of_running(job: RunningJob) -> Amount:
    """Return what a running job takes from its team's quota."""
    num_workers = len(job.node_ids)
    return Amount(num_workers * to_units(job.gpus_per_worker), num_workers * to_units(job.cpus_per_worker), 1)


def limit_of(quota: TeamQuota | None) -> Amount:
    """Return a quota as an amount."""
    if quota is None:
        return _UNLIMITED
    return Amount(
        math.inf if quota.gpus is None else quota.gpus * UNITS,
        math.inf if quota.cpus is None else quota.cpus * UNITS,
        math.inf if quota.running_jobs is None else quota.running_jobs,
    )


class QuotaBook:
    """The quotas of all teams during one plan.

    `left` is what a team may start now. `left_later` is what it could start once the jobs that are leaving have left:
    jobs that wait for them are served from it, and keep their part of `left`.
    """

    def __init__(
        self, quotas: Mapping[str, TeamQuota], running: Iterable[RunningJob], leaving: Collection[str]
    ) -> None:
        self._limits = {team: limit_of(quota) for team, quota in quotas.items()}
        self._left = dict(self._limits)
        self._left_later = dict(self._limits)
        self._held: dict[str, Amount] = {}
        for job in running:
            amount = amount_of_running(job)
            self._held[job.team] = self._held.get(job.team, _NOTHING).plus(amount)
            if job.job_id not in leaving and job.team in self._limits:
                self._left_later[job.team] = self._left_later[job.team].minus(amount)
        for team, amount in self._held.items():
            if team in self._limits:
                self._left[team] = self._limits[team].minus(amount)

    @property
    def holding_teams(self) -> tuple[str, ...]:
        """Teams that hold something, this plan's starts included."""
        return tuple(sorted(self._held))

    def held(self, team: str) -> Amount:
        """Return what a team holds, this plan's starts included."""
        return self._held.get(team, _NOTHING)

    def limit(self, team: str) -> Amount:
        """Return the whole quota of a team."""
        return self._limits.get(team, _UNLIMITED)

    def left(self, team: str) -> Amount:
        """Return what the team may start now."""
        return self._left.get(team, _UNLIMITED)

    def left_later(self, team: str, *, freed: Amount = _NOTHING) -> Amount:
        """Return what the team may start once the leaving jobs have left, and `freed` with them."""
        return self._left_later.get(team, _UNLIMITED).plus(freed)

    def start(self, team: str, amount: Amount) -> None:
        """Take a job that starts now."""
        self._held[team] = self.held(team).plus(amount)
        if team in self._limits:
            self._left[team] = self._left[team].minus(amount)
            self._left_later[team] = self._left_later[team].minus(amount)

    def leave(self, team: str, amount: Amount) -> None:
        """Note that a running job was asked to leave."""
        if team in self._limits:
            self._left_later[team] = self._left_later[team].plus(amount)

    def keep_later(self, team: str, amount: Amount) -> None:
        """Keep room for a job that starts when the leaving jobs have left."""
        if team in self._limits:
            self._left_later[team] = self._left_later[team].minus(amount)
            self._left[team] = self._left[team].overlap(self._left_later[team])

    def keep(self, team: str, amount: Amount) -> None:
        """Keep all that a blocked job will need, and let the team start only what leaves that untouched."""
        if team in self._limits:
            self._left[team] = self._left[team].minus(amount)
            self._left_later[team] = self._left_later[team].minus(amount)
