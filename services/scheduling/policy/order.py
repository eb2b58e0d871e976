"""The order of the queue: priority, promises, then fair share by decayed usage (`xsam.services.usage.decay`)."""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from operator import attrgetter

from xsam.services.scheduling.policy.types import PendingJob, RunningJob
from xsam.services.settings import SchedulingSettings
from xsam.services.usage.decay import TeamShare, contribution, resource_rate, usage_at

_NO_SHARE = TeamShare()


class ShareLedger:
    """Usage of teams and users at one instant, plus what this plan promises in advance."""

    def __init__(
        self, shares: Mapping[str, TeamShare], running: Iterable[RunningJob], now: datetime, config: SchedulingSettings
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
