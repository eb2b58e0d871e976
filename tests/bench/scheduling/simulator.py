"""Replays a trace of jobs against a scheduling policy, event by event, in simulated time.

It lives with the benchmarks and not in the product: the product has no caller for it, and a policy is judged here by
the same function that the dispatcher calls.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from xsam.services.scheduling.policy.plan import Plan
from xsam.services.scheduling.policy.types import Node, PendingJob, Placement, RunningJob, Snapshot
from xsam.services.settings import SchedulingSettings
from xsam.services.teams.quota import TeamQuota
from xsam.services.usage.decay import DecayedUsage, TeamShare, add_attempt, resource_rate

EPOCH = datetime(2026, 1, 5, tzinfo=UTC)  # a Monday
Decide = Callable[[Snapshot], Plan]


@dataclass(frozen=True, slots=True)
class TraceJob:
    """A job as it was recorded: what was asked for, and how long it really runs."""

    job_id: str
    team: str
    user: str
    priority: int
    submit_s: float
    run_s: float
    num_workers: int
    gpus_per_worker: float
    cpus_per_worker: float
    max_run_time_s: float | None = None
    expected_run_time_s: float | None = None

    @property
    def gpus(self) -> float:
        """GPUs of all workers."""
        return self.num_workers * self.gpus_per_worker


@dataclass(frozen=True, slots=True)
class Site:
    """Where and how the trace is replayed.

    Args:
        nodes: The cluster.
        quotas: By team.
        weights: By team.
        config: Its half-life and weights are used for the usage that the policy is shown.
        plan_interval_s: Decisions happen at multiples of this, when something happened.
        idle_interval_s: And at least this often while jobs wait, because rules depend on time too.
        stop_s: From a preemption to free resources.
        restart_s: Run time that each preemption adds (load the checkpoint, start the ranks).
    """

    nodes: tuple[Node, ...]
    quotas: Mapping[str, TeamQuota] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    config: SchedulingSettings = field(default_factory=SchedulingSettings)
    plan_interval_s: float = 60.0
    idle_interval_s: float = 600.0
    stop_s: float = 30.0
    restart_s: float = 60.0


@dataclass(slots=True)
class Record:
    """What became of one job. `intervals_s` are its attempts, (start, end)."""

    job: TraceJob
    intervals_s: list[tuple[float, float]] = field(default_factory=list)
    is_done: bool = False
    num_preemptions: int = 0

    @property
    def wait_s(self) -> float:
        """From submit to the first start; infinite if it never started."""
        return self.intervals_s[0][0] - self.job.submit_s if self.intervals_s else math.inf

    @property
    def end_s(self) -> float:
        """End of the last attempt; infinite if it is not done."""
        return self.intervals_s[-1][1] if self.is_done else math.inf


@dataclass(slots=True)
class _Run:
    """One attempt under way."""

    view: RunningJob
    start_s: float
    needs_s: float


def simulate(jobs: Sequence[TraceJob], site: Site, decide: Decide, *, until_s: float = math.inf) -> dict[str, Record]:
    """Replay a trace.

    Args:
        jobs: The trace.
        site: Cluster and circumstances.
        decide: The policy.
        until_s: Stop here, with jobs running or waiting.

    Returns:
        A record of each job, by job id.
    """
    simulation = _Simulation(jobs, site, decide)
    simulation.run(until_s)
    return simulation.records


class _Simulation:
    def __init__(self, jobs: Sequence[TraceJob], site: Site, decide: Decide) -> None:
        self._site = site
        self._decide = decide
        self.records = {job.job_id: Record(job) for job in jobs}
        self._events = [(job.submit_s, 0, job.job_id, 0) for job in jobs]
        heapq.heapify(self._events)
        self._pending: dict[str, PendingJob] = {}
        self._left_s = {job.job_id: job.run_s for job in jobs}
        self._running: dict[str, _Run] = {}
        self._holders: tuple[str, ...] = ()
        self._usage: dict[str, DecayedUsage] = {}
        self._user_usage: dict[str, dict[str, DecayedUsage]] = {}

    def run(self, until_s: float) -> None:
        """Go from decision to decision until nothing is left to do."""
        interval = self._site.plan_interval_s
        now_s = 0.0
        while self._events or self._pending:
            next_s = self._events[0][0] if self._events else math.inf
            if self._pending:
                next_s = min(next_s, now_s + self._site.idle_interval_s)
            now_s = max(now_s, math.ceil(next_s / interval) * interval)
            if now_s > until_s:
                break
            while self._events and self._events[0][0] <= now_s:
                self._happen(*heapq.heappop(self._events))
            if self._pending and not self._turn(now_s) and not self._events:
                break  # nothing runs, nothing comes, and nothing that waits can start
        for job_id in list(self._running):
            self._leave(job_id, min(now_s, until_s))

    def _happen(self, at_s: float, kind: int, job_id: str, attempt: int) -> None:
        record = self.records[job_id]
        if kind == 0:
            self._pending[job_id] = self._as_pending(record.job)
        elif attempt == len(record.intervals_s) and job_id in self._running:
            run = self._running[job_id]
            is_done = at_s >= run.start_s + run.needs_s
            self._leave(job_id, at_s)
            record.is_done = is_done
            if not is_done:
                record.num_preemptions += 1
                self._left_s[job_id] = run.needs_s - (at_s - run.start_s) + self._site.restart_s
                self._pending[job_id] = self._as_pending(record.job)

    def _leave(self, job_id: str, at_s: float) -> None:
        run = self._running.pop(job_id)
        self.records[job_id].intervals_s.append((run.start_s, at_s))
        view, config = run.view, self._site.config
        rate = resource_rate(view.gpus, view.cpus, config)
        times = {"started_at": view.started_at, "ended_at": _instant(at_s)}
        users = self._user_usage.setdefault(view.team, {})
        users[view.user] = add_attempt(users.get(view.user), rate=rate, half_life_s=config.half_life_s, **times)
        self._usage[view.team] = add_attempt(
            self._usage.get(view.team), rate=rate, half_life_s=config.half_life_s, **times
        )

    def _turn(self, now_s: float) -> bool:
        plan = self._decide(self._snapshot(now_s))
        self._holders = plan.holders
        for placement in plan.placements:
            self._start(placement, now_s)
        for preemption in plan.preemptions:
            self._ask_to_stop(preemption.victim_job_id, now_s)
        return bool(plan.placements)

    def _snapshot(self, now_s: float) -> Snapshot:
        teams = set(self._usage) | set(self._site.weights)
        return Snapshot(
            now=_instant(now_s),
            pending=list(self._pending.values()),
            running=[run.view for run in self._running.values()],
            nodes=self._site.nodes,
            quotas=self._site.quotas,
            shares={
                team: TeamShare(
                    self._site.weights.get(team, 1.0), self._usage.get(team), self._user_usage.get(team, {})
                )
                for team in teams
            },
            holders=self._holders,
        )

    def _start(self, placement: Placement, now_s: float) -> None:
        job_id = placement.job_id
        pending = self._pending.pop(job_id)
        job = self.records[job_id].job
        expected_s = pending.expected_run_time_s
        view = RunningJob(
            job_id=job_id,
            team=job.team,
            user=job.user,
            priority=job.priority,
            started_at=_instant(now_s),
            node_ids=placement.node_ids,
            gpus_per_worker=job.gpus_per_worker,
            cpus_per_worker=job.cpus_per_worker,
            max_run_time_s=pending.max_run_time_s,
            expected_end_at=None if expected_s is None else _instant(now_s + expected_s),
        )
        self._running[job_id] = _Run(view, now_s, self._left_s[job_id])
        attempt = len(self.records[job_id].intervals_s)
        heapq.heappush(self._events, (now_s + self._left_s[job_id], 1, job_id, attempt))

    def _ask_to_stop(self, job_id: str, now_s: float) -> None:
        run = self._running[job_id]
        run.view = replace(run.view, is_stopping=True)
        attempt = len(self.records[job_id].intervals_s)
        heapq.heappush(self._events, (now_s + self._site.stop_s, 2, job_id, attempt))

    def _as_pending(self, job: TraceJob) -> PendingJob:
        done_s = job.run_s - self._left_s[job.job_id]
        expected_s = job.expected_run_time_s
        return PendingJob(
            job_id=job.job_id,
            team=job.team,
            user=job.user,
            priority=job.priority,
            submitted_at=_instant(job.submit_s),
            num_workers=job.num_workers,
            gpus_per_worker=job.gpus_per_worker,
            cpus_per_worker=job.cpus_per_worker,
            max_run_time_s=None if job.max_run_time_s is None else job.max_run_time_s - done_s,
            expected_run_time_s=None if expected_s is None else max(60.0, expected_s - done_s),
            attempt=len(self.records[job.job_id].intervals_s) + 1,
        )


def _instant(at_s: float) -> datetime:
    return EPOCH + timedelta(seconds=at_s)
