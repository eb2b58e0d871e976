"""Decayed usage and the order that follows from it.

A job that holds `rate` resource units adds `rate` per second to the usage of its team and user, and whatever was used
counts half after each half-life: usage at t = integral of rate(s) * 2^(-(t - s) / half_life) ds. Decay is linear, so
the contribution of each attempt can be computed alone, when it ends, and added to one stored pair (value, as_of):

    value(t) = value(as_of) * 2^(-(t - as_of) / half_life)
    after an attempt [start, end]: (value(end) + contribution(rate, start, end), end)

which is one UPDATE per ended attempt and needs no periodic job. Running attempts are not in the stored value; the
policy adds their contribution up to now itself.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from operator import attrgetter

from xsam.services.scheduling.policy.types import DecayedUsage, PendingJob, PolicyConfig, RunningJob, TeamShare

_NO_SHARE = TeamShare()


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


def resource_rate(gpus: float, cpus: float, config: PolicyConfig) -> float:
    """Return the resource units that an allocation uses per second."""
    return gpus * config.gpu_weight + cpus * config.cpu_weight


class ShareLedger:
    """Usage of teams and users at one instant, plus what this plan promises in advance."""

    def __init__(
        self, shares: Mapping[str, TeamShare], running: Iterable[RunningJob], now: datetime, config: PolicyConfig
    ) -> None:
        self._now = now
        self._config = config
        self._shares = shares
        self.team_usage: dict[str, float] = {}
        self.user_usage: dict[tuple[str, str], float] = {}
        self.num_charges = 0
        self._team_charge: dict[str, float] = {}
        self._user_charge: dict[tuple[str, str], float] = {}
        for team, share in shares.items():
            self.team_usage[team] = usage_at(share.usage, now, config.half_life_s)
            for user, usage in share.users.items():
                self.user_usage[team, user] = usage_at(usage, now, config.half_life_s)
        for job in running:
            self._add_running(job)

    def weight_of(self, team: str) -> float:
        """Return the team's weight."""
        return self._shares.get(team, _NO_SHARE).weight

    def team_key(self, team: str) -> float:
        """Return the team's usage and advance charges per weight: the lowest goes first."""
        return (self.team_usage.get(team, 0.0) + self._team_charge.get(team, 0.0)) / self.weight_of(team)

    def user_key(self, team: str, user: str) -> float:
        """Return the user's usage and advance charges: the lowest in the team goes first."""
        return self.user_usage.get((team, user), 0.0) + self._user_charge.get((team, user), 0.0)

    def charge(self, job: PendingJob) -> None:
        """Charge a job that starts, in advance."""
        known = [s for s in (job.expected_run_time_s, job.max_run_time_s) if s is not None]
        gpus, cpus = job.num_workers * job.gpus_per_worker, job.num_workers * job.cpus_per_worker
        self._charge(job.team, job.user, resource_rate(gpus, cpus, self._config), min(known, default=math.inf))

    def copy(self) -> ShareLedger:
        """Return a ledger with the same usage and charges that can be charged apart from this one."""
        twin = ShareLedger({}, (), self._now, self._config)
        twin._shares, twin.team_usage, twin.user_usage = self._shares, self.team_usage, self.user_usage
        twin._team_charge, twin._user_charge = dict(self._team_charge), dict(self._user_charge)
        return twin

    def _add_running(self, job: RunningJob) -> None:
        rate = resource_rate(job.gpus, job.cpus, self._config)
        ran_s = (self._now - job.started_at).total_seconds()
        used = contribution(rate, ran_s, self._config.half_life_s)
        owner = (job.team, job.user)
        self.team_usage[job.team] = self.team_usage.get(job.team, 0.0) + used
        self.user_usage[owner] = self.user_usage.get(owner, 0.0) + used
        remaining_s = math.inf
        if job.expected_end_at is not None and job.expected_end_at > self._now:
            remaining_s = (job.expected_end_at - self._now).total_seconds()
        if job.max_run_time_s is not None:
            remaining_s = min(remaining_s, max(0.0, job.max_run_time_s - ran_s))
        if not job.is_stopping:
            self._charge(job.team, job.user, rate, remaining_s)

    def _charge(self, team: str, user: str, rate: float, duration_s: float) -> None:
        self.num_charges += 1
        amount = rate * min(duration_s, self._config.charge_window_s)
        self._team_charge[team] = self._team_charge.get(team, 0.0) + amount
        self._user_charge[team, user] = self._user_charge.get((team, user), 0.0) + amount


def line_up(jobs: Iterable[PendingJob], ledger: ShareLedger, holders: Sequence[str]) -> Iterator[PendingJob]:
    """Yield jobs by priority, then earlier promises, then fair share, then time of submission.

    Args:
        jobs: In any order.
        ledger: Usage; charges made while this runs count at once.
        holders: Jobs with a promise, in its order.
    """
    rank = {job_id: position for position, job_id in enumerate(holders)}
    levels: defaultdict[int, list[PendingJob]] = defaultdict(list)
    for job in jobs:
        levels[job.priority].append(job)
    for priority in sorted(levels, reverse=True):
        level = levels[priority]
        # Two stable sorts on plain values: half the time of one on tuples, and nothing for the garbage collector.
        level.sort(key=attrgetter("job_id"))
        level.sort(key=attrgetter("submitted_at"))
        promised = [job for job in level if job.job_id in rank] if rank else []
        promised.sort(key=lambda job: rank[job.job_id])
        yield from promised
        yield from fair_order((job for job in level if job.job_id not in rank) if promised else level, ledger)


def fair_order(jobs: Iterable[PendingJob], ledger: ShareLedger) -> Iterator[PendingJob]:
    """Yield jobs of one priority: the team with the lowest key, in it the user with the lowest key, then the oldest.

    Charges made between two steps count at once. Keys only ever rise, so a heap entry that is out of date is found
    when it reaches the top.

    Args:
        jobs: In order of submission.
        ledger: May be charged while this runs.
    """
    by_team: defaultdict[str, list[PendingJob]] = defaultdict(list)
    for job in jobs:
        by_team[job.team].append(job)
    lines = {team: _user_lines(team_jobs) for team, team_jobs in by_team.items()}
    users = {team: _heap((ledger.user_key(team, user), user) for user in line) for team, line in lines.items()}
    teams = _heap((ledger.team_key(team), team) for team in lines)
    while teams:
        key, team = teams[0]
        current = ledger.team_key(team)
        if current != key:
            heapq.heapreplace(teams, (current, team))
            continue
        yield from _until_charged(team, users[team], lines[team], ledger)
        if not users[team]:
            heapq.heappop(teams)


def _until_charged(
    team: str, users: list[tuple[float, str]], lines: dict[str, list[PendingJob]], ledger: ShareLedger
) -> Iterator[PendingJob]:
    """Yield jobs of one team until something is charged: before that no key changes, so the order cannot either."""
    while users:
        key, user = users[0]
        current = ledger.user_key(team, user)
        if current != key:
            heapq.heapreplace(users, (current, user))
            continue
        line, num_charges = lines[user], ledger.num_charges
        while line:
            yield line.pop()
            if ledger.num_charges != num_charges:
                break
        if not line:
            heapq.heappop(users)
        if ledger.num_charges != num_charges:
            return


def _user_lines(jobs: Sequence[PendingJob]) -> dict[str, list[PendingJob]]:
    """Return the jobs of each user, oldest last, so that `pop` takes the oldest."""
    lines: defaultdict[str, list[PendingJob]] = defaultdict(list)
    for job in reversed(jobs):
        lines[job.user].append(job)
    return lines


def _heap(entries: Iterable[tuple[float, str]]) -> list[tuple[float, str]]:
    heap = list(entries)
    heapq.heapify(heap)
    return heap
