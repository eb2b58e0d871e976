"""What each team may still start: its quota, less what runs, what this plan starts, and what it keeps for a job ahead.

A quota of one kind of GPU bounds jobs that name the kind as that of all GPUs does. A job that names none goes to no
node of a kind of which its team has not enough left for the whole of it: those kinds are closed to it.

Amounts are in the integer steps of `capacity`; a limit that is not set is infinity.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from xsam.services.cluster.traits import NodeNeeds
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


ByKind = Mapping[str, float]
"""GPU units by kind, in lower case."""


def kind_of(shape: Shape) -> str:
    """Return the kind that a request names, in lower case; empty where it names none or asks for no GPUs."""
    return shape.needs.gpu_kind.lower() if shape.needs is not None and shape.gpus else ""


class QuotaBook:
    """The quotas of all teams during one plan.

    `left` is what a team may start now. `left_later` is what it could start once the jobs that are leaving have left:
    jobs that wait for them are served from it, and keep their part of `left`.

    Args:
        quotas: by team.
        running: all jobs that hold something.
        leaving: ids of those that were asked to stop.
        kinds: what GPUs each node has, in lower case, by node id.
    """

    def __init__(
        self,
        quotas: Mapping[str, TeamQuota],
        running: Iterable[RunningJob],
        leaving: Collection[str],
        kinds: Mapping[str, str],
    ) -> None:
        self._kinds = kinds
        self._limits = {team: limit_of(quota) for team, quota in quotas.items()}
        self._left = dict(self._limits)
        self._left_later = dict(self._limits)
        self._held: dict[str, Amount] = {}
        by_kind = {team: quota.gpus_by_kind for team, quota in quotas.items() if quota.gpus_by_kind}
        self._kind_limits = {
            team: {kind: gpus * UNITS for kind, gpus in limits.items()} for team, limits in by_kind.items()
        }
        self._kind_left = {team: dict(limits) for team, limits in self._kind_limits.items()}
        self._kind_left_later = {team: dict(limits) for team, limits in self._kind_limits.items()}
        self._kind_held: dict[str, dict[str, float]] = {
            team: dict.fromkeys(limits, 0.0) for team, limits in self._kind_limits.items()
        }
        for job in running:
            amount = amount_of_running(job)
            of_kinds = self.kinds_of_running(job)
            self._held[job.team] = self._held.get(job.team, _NOTHING).plus(amount)
            _add(self._kind_held.get(job.team), of_kinds)
            _take(self._kind_left.get(job.team), of_kinds)
            if job.job_id not in leaving and job.team in self._limits:
                self._left_later[job.team] = self._left_later[job.team].minus(amount)
                _take(self._kind_left_later.get(job.team), of_kinds)
        for team, amount in self._held.items():
            if team in self._limits:
                self._left[team] = self._limits[team].minus(amount)

    @property
    def holding_teams(self) -> tuple[str, ...]:
        """Teams that hold something, this plan's starts included."""
        return tuple(sorted(self._held))

    def counts_kinds(self, team: str) -> bool:
        """Return whether a team has a quota of any kind of GPU."""
        return team in self._kind_limits

    def kinds_on(self, team: str, gpus: int, node_ids: Iterable[str]) -> ByKind:
        """Return what workers with so many GPU units each hold on these nodes by kind; nothing where nobody counts."""
        if not gpus or team not in self._kind_limits:
            return {}
        found = Counter(self._kinds.get(node_id, "") for node_id in node_ids)
        return {kind: count * gpus for kind, count in found.items() if kind}

    def kinds_of_running(self, job: RunningJob) -> ByKind:
        """Return what a running job holds by kind; nothing where nobody counts."""
        return self.kinds_on(job.team, to_units(job.gpus_per_worker), job.node_ids)

    def open_ever(self, team: str, shape: Shape) -> Shape:
        """Return the request with the kinds closed that the whole quota does not cover."""
        return _open(shape, self._kind_limits.get(team))

    def open_now(self, team: str, shape: Shape) -> Shape:
        """Return the request with the kinds closed of which the team has not enough left now."""
        return _open(shape, self._kind_left.get(team))

    def open_later(self, team: str, shape: Shape) -> Shape:
        """Return the request with the kinds closed of which it will not have enough once leaving jobs have left."""
        return _open(shape, self._kind_left_later.get(team))

    def held(self, team: str) -> Amount:
        """Return what a team holds, this plan's starts included."""
        return self._held.get(team, _NOTHING)

    def kinds_held(self, team: str) -> Iterable[tuple[str, float, float]]:
        """Yield each kind that a team has a quota of, the GPUs of it that it holds, and those that it may hold."""
        for kind, limit in sorted(self._kind_limits.get(team, {}).items()):
            yield kind, self._kind_held[team][kind] / UNITS, limit / UNITS

    def limit(self, team: str, kind: str = "") -> Amount:
        """Return the whole quota of a team, for jobs that name the kind."""
        return _bounded(self._limits.get(team, _UNLIMITED), self._kind_limits.get(team), kind)

    def unheld(self, team: str, kind: str = "") -> Amount:
        """Return what of the quota nobody holds, whatever is kept of it."""
        held = self._kind_held.get(team)
        limits = (
            {name: gpus - held[name] for name, gpus in self._kind_limits[team].items()} if held is not None else None
        )
        return _bounded(self.limit(team).minus(self.held(team)), limits, kind)

    def left(self, team: str, kind: str = "") -> Amount:
        """Return what the team may start now, of jobs that name the kind."""
        return _bounded(self._left.get(team, _UNLIMITED), self._kind_left.get(team), kind)

    def left_later(self, team: str, kind: str = "", *, freed: Amount = _NOTHING, freed_of_kind: float = 0) -> Amount:
        """Return what the team may start once the leaving jobs have left, and `freed` with them."""
        left = self._left_later.get(team, _UNLIMITED).plus(freed)
        by_kind = self._kind_left_later.get(team)
        if by_kind is not None and freed_of_kind:
            by_kind = {**by_kind, kind: by_kind[kind] + freed_of_kind} if kind in by_kind else by_kind
        return _bounded(left, by_kind, kind)

    def start(self, team: str, amount: Amount, kinds: ByKind) -> None:
        """Take a job that starts now."""
        self._held[team] = self.held(team).plus(amount)
        _add(self._kind_held.get(team), kinds)
        self._take_both(team, amount, kinds)

    def leave(self, team: str, amount: Amount, kinds: ByKind) -> None:
        """Note that a running job was asked to leave."""
        if team in self._limits:
            self._left_later[team] = self._left_later[team].plus(amount)
            _add(self._kind_left_later.get(team), kinds)

    def keep_later(self, team: str, amount: Amount, kinds: ByKind) -> None:
        """Keep room for a job that starts when the leaving jobs have left."""
        if team not in self._limits:
            return
        self._left_later[team] = self._left_later[team].minus(amount)
        self._left[team] = self._left[team].overlap(self._left_later[team])
        if team in self._kind_limits:
            now, later = self._kind_left[team], self._kind_left_later[team]
            _take(later, kinds)
            self._kind_left[team] = {kind: min(now[kind], later[kind]) for kind in now}

    def keep(self, team: str, amount: Amount, kind: str = "") -> None:
        """Keep all that a blocked job will need, and let the team start only what leaves that untouched."""
        self._take_both(team, amount, {kind: amount.gpus})

    def _take_both(self, team: str, amount: Amount, kinds: ByKind) -> None:
        if team in self._limits:
            self._left[team] = self._left[team].minus(amount)
            self._left_later[team] = self._left_later[team].minus(amount)
            _take(self._kind_left.get(team), kinds)
            _take(self._kind_left_later.get(team), kinds)


def _bounded(amount: Amount, by_kind: ByKind | None, kind: str) -> Amount:
    return amount if by_kind is None or kind not in by_kind else amount._replace(gpus=min(amount.gpus, by_kind[kind]))


def _open(shape: Shape, by_kind: ByKind | None) -> Shape:
    if by_kind is None or not shape.gpus or kind_of(shape):
        return shape
    asked = shape.num_workers * shape.gpus
    closed = tuple(sorted(kind for kind, gpus in by_kind.items() if gpus < asked))
    return shape._replace(needs=(shape.needs or NodeNeeds())._replace(closed_kinds=closed)) if closed else shape


def _add(book: dict[str, float] | None, kinds: ByKind) -> None:
    for kind, gpus in kinds.items():
        if book is not None and kind in book:
            book[kind] += gpus


def _take(book: dict[str, float] | None, kinds: ByKind) -> None:
    _add(book, {kind: -gpus for kind, gpus in kinds.items()})
