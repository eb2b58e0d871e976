"""Turns what a plan noted about the jobs it did not start into full reasons, when somebody asks.

A plan is made several times a second and most reasons are never read, so the plan keeps its final state and the
numbers are derived from that. The answer does not depend on which reasons are read, or when.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from xsam.services.cluster.traits import NodeNeeds
from xsam.services.scheduling.policy.backfill import End, earliest_start, known_end, sort_ends
from xsam.services.scheduling.policy.capacity import UNITS, Book, Cluster, Shape, shape_of
from xsam.services.scheduling.policy.free_nodes import Board
from xsam.services.scheduling.policy.order import ShareLedger, line_up
from xsam.services.scheduling.policy.quotas import QuotaBook, amount_of, kind_of
from xsam.services.scheduling.policy.reasons import Holding, Reason, ReasonCode, Request, Shortage, Standing
from xsam.services.scheduling.policy.types import PendingJob, Snapshot
from xsam.services.settings import SchedulingSettings

MAX_BLOCKING_JOBS = 5
MAX_REMARKS = 3
OUT_OF_LINE = frozenset(
    {
        ReasonCode.NOT_YET_ELIGIBLE,
        ReasonCode.INFEASIBLE_CLUSTER,
        ReasonCode.INFEASIBLE_QUOTA,
    }
)
_WITHOUT_SHORTAGE = frozenset({ReasonCode.NOT_YET_ELIGIBLE, ReasonCode.NO_NODES})
_ABOUT_NODES = frozenset(
    {ReasonCode.INSUFFICIENT_RESOURCES, ReasonCode.FRAGMENTED, ReasonCode.RESERVED, ReasonCode.NO_NODES}
)
_ABOUT_QUOTA = frozenset({ReasonCode.INFEASIBLE_QUOTA, ReasonCode.TEAM_QUOTA, ReasonCode.QUOTA_RESERVED})


@dataclass(frozen=True, slots=True)
class Blocked:
    """What a plan notes about a job, or a shape of jobs, that it did not start.

    Args:
        code: What stopped it, before the finer distinctions that this module makes.
        blocking_job_ids: Jobs in the way, if the rule knows them.
        starts_at: When it will start, if the rule knows.
        may_end_in_time: Whether a job of this shape could start if it ended before the reservation.
    """

    code: ReasonCode
    blocking_job_ids: tuple[str, ...] = ()
    starts_at: datetime | None = None
    may_end_in_time: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """The final state of a plan."""

    snapshot: Snapshot
    config: SchedulingSettings
    cluster: Cluster
    board: Board
    quotas: QuotaBook
    ledger: ShareLedger
    waiting: Sequence[PendingJob]
    blocked_by: Sequence[Blocked]


class Reasons(Mapping[str, Reason]):
    """The reason of each queued job that a plan did not place, by job id."""

    def __init__(self, outcome: Outcome, holders: Sequence[str]) -> None:
        self._outcome = outcome
        self._holders = holders
        self._shortages: dict[tuple[str, Shape, bool], Shortage] = {}
        self._estimates: dict[Shape, datetime | None] = {}
        self._standings: dict[tuple[str, str], Standing] = {}

    @property
    def line(self) -> Sequence[str]:
        """The jobs that could start if there were room, in the order in which they would."""
        return list(self._positions)

    @property
    def infeasible(self) -> Sequence[str]:
        """The jobs that the whole cluster could not hold."""
        pairs = zip(self._outcome.waiting, self._outcome.blocked_by, strict=True)
        return [job.job_id for job, blocked in pairs if blocked.code is ReasonCode.INFEASIBLE_CLUSTER]

    def code(self, job_id: str) -> ReasonCode:
        """Return the code of a job's reason alone."""
        job, blocked = self._by_id[job_id]
        return self._code(job, shape_of(job), blocked)

    def __getitem__(self, job_id: str) -> Reason:
        job, blocked = self._by_id[job_id]
        shape = shape_of(job)
        code = self._code(job, shape, blocked)
        starts_at, is_lower_bound = self._estimate(shape, code, blocked)
        return Reason(
            code=code,
            job_id=job.job_id,
            team=job.team,
            user=job.user,
            request=_request(job),
            position=self._positions.get(job_id),
            num_in_line=len(self._positions),
            shortage=None if code in _WITHOUT_SHORTAGE else self._shortage(job.team, shape, code),
            blocking_job_ids=self._blocking(job, shape, code, blocked),
            holdings=self._holdings,
            standing=self._standing(job.team, job.user),
            estimated_start_at=starts_at,
            is_lower_bound=is_lower_bound,
            eligible_at=job.eligible_at,
            attempt=job.attempt,
            remarks=self._remarks_on(job.team, code),
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_id)

    def __len__(self) -> int:
        return len(self._outcome.waiting)

    @cached_property
    def _by_id(self) -> dict[str, tuple[PendingJob, Blocked]]:
        outcome = self._outcome
        pairs = zip(outcome.waiting, outcome.blocked_by, strict=True)
        return {job.job_id: (job, blocked) for job, blocked in pairs}

    @cached_property
    def _positions(self) -> dict[str, int]:
        """The order in which the waiting jobs would start if each could: every one is charged as it is passed."""
        in_line = (job for job, blocked in self._by_id.values() if blocked.code not in OUT_OF_LINE)
        ledger = self._outcome.ledger.copy()
        positions = {}
        for position, job in enumerate(line_up(in_line, ledger, self._holders), start=1):
            positions[job.job_id] = position
            ledger.charge(job)
        return positions

    @cached_property
    def _free(self) -> Book:
        """What nobody uses once this plan is carried out, kept room included."""
        return self._outcome.cluster.book_without(self._outcome.board.kept_for)

    @cached_property
    def _free_sum(self) -> tuple[float, float]:
        free = self._free.free
        return sum(node.gpu_units for node in free) / UNITS, sum(node.cpus for node in free) / UNITS

    @cached_property
    def _ends(self) -> list[End]:
        now = self._outcome.snapshot.now
        ends = ((known_end(job, now), job.job_id) for job in self._outcome.snapshot.running)
        return sort_ends(End(at, job_id) for at, job_id in ends if at is not None)

    @cached_property
    def _holdings(self) -> tuple[Holding, ...]:
        held = [self._holding(team) for team in self._outcome.quotas.holding_teams]
        return tuple(sorted(held, key=lambda holding: (-holding.gpus, -holding.cpus, holding.team)))

    def _remarks_on(self, team: str, code: ReasonCode) -> tuple[str, ...]:
        if code in _ABOUT_NODES:
            return self._remarks
        held = [f"{held:g} of {limit:g} {kind}" for kind, held, limit in self._outcome.quotas.kinds_held(team)]
        return (f"By kind of GPU it holds {', '.join(held)}.",) if held and code in _ABOUT_QUOTA else ()

    @cached_property
    def _remarks(self) -> tuple[str, ...]:
        said = list(dict.fromkeys(node.remark for node in self._outcome.snapshot.nodes if node.remark))
        rest = (f"{len(said) - MAX_REMARKS} more nodes miss something.",) if len(said) > MAX_REMARKS else ()
        return (*said[:MAX_REMARKS], *rest)

    def _holding(self, team: str) -> Holding:
        amount = self._outcome.quotas.held(team)
        return Holding(team, amount.gpus / UNITS, amount.cpus / UNITS, int(amount.jobs))

    def _code(self, job: PendingJob, shape: Shape, blocked: Blocked) -> ReasonCode:
        if blocked.code is ReasonCode.TEAM_QUOTA:
            quotas = self._outcome.quotas
            kind = kind_of(shape)
            may_be_closed = not kind and quotas.counts_kinds(job.team)
            has_room = not may_be_closed and quotas.unheld(job.team, kind).covers(amount_of(shape))
            return ReasonCode.QUOTA_RESERVED if has_room else blocked.code
        if blocked.code is not ReasonCode.INSUFFICIENT_RESOURCES:
            return blocked.code
        shortage = self._shortage(job.team, shape, blocked.code)
        if shortage.workers_that_fit >= shape.num_workers:
            return ReasonCode.RESERVED
        return blocked.code if shortage.gpus or shortage.cpus else ReasonCode.FRAGMENTED

    def _shortage(self, team: str, shape: Shape, code: ReasonCode) -> Shortage:
        about_quota = code in _ABOUT_QUOTA
        key = (team if about_quota else "", shape, about_quota)
        if key not in self._shortages:
            if about_quota:
                self._shortages[key] = self._quota_shortage(team, shape, code)
            else:
                self._shortages[key] = self._cluster_shortage(shape)
        return self._shortages[key]

    def _cluster_shortage(self, shape: Shape) -> Shortage:
        free_gpus, free_cpus = self._free_sum
        amount = amount_of(shape)
        return Shortage(
            gpus=max(0.0, amount.gpus / UNITS - free_gpus),
            cpus=max(0.0, amount.cpus / UNITS - free_cpus),
            running_jobs=0,
            free_gpus=free_gpus,
            free_cpus=free_cpus,
            total_gpus=self._outcome.cluster.total_gpus,
            total_cpus=self._outcome.cluster.total_cpus,
            total_running_jobs=None,
            workers_that_fit=min(shape.num_workers, self._free.num_workers(shape)),
        )

    def _quota_shortage(self, team: str, shape: Shape, code: ReasonCode) -> Shortage:
        quotas = self._outcome.quotas
        kind = kind_of(shape)
        limit, need = quotas.limit(team, kind), amount_of(shape)
        left = limit if code is ReasonCode.INFEASIBLE_QUOTA else quotas.unheld(team, kind)
        return Shortage(
            gpus=max(0.0, (need.gpus - max(0.0, left.gpus)) / UNITS),
            cpus=max(0.0, (need.cpus - max(0.0, left.cpus)) / UNITS),
            running_jobs=int(max(0.0, need.jobs - max(0.0, left.jobs))),
            free_gpus=_finite(max(0.0, left.gpus) / UNITS),
            free_cpus=_finite(max(0.0, left.cpus) / UNITS),
            total_gpus=_finite(limit.gpus / UNITS),
            total_cpus=_finite(limit.cpus / UNITS),
            total_running_jobs=None if limit.jobs == math.inf else int(limit.jobs),
            workers_that_fit=min(shape.num_workers, self._free.num_workers(shape)),
        )

    def _estimate(self, shape: Shape, code: ReasonCode, blocked: Blocked) -> tuple[datetime | None, bool]:
        if blocked.starts_at is not None:
            return blocked.starts_at, False
        if code not in (ReasonCode.INSUFFICIENT_RESOURCES, ReasonCode.FRAGMENTED):
            return None, False
        if shape not in self._estimates:
            outcome = self._outcome
            gone = outcome.board.kept_for
            self._estimates[shape] = earliest_start(outcome.cluster, self._free, shape, self._ends, gone)[0]
        return self._estimates[shape], self._estimates[shape] is not None

    def _blocking(self, job: PendingJob, shape: Shape, code: ReasonCode, blocked: Blocked) -> tuple[str, ...]:
        if code in OUT_OF_LINE or code is ReasonCode.NO_NODES:
            return ()
        if code is ReasonCode.RESERVED:
            kept = [job_id for job_id in self._outcome.board.kept_for if job_id != job.job_id]
            return tuple(kept[:MAX_BLOCKING_JOBS])
        if code is ReasonCode.TEAM_QUOTA:
            return self._largest_running(is_gpu_job=bool(shape.gpus), team=job.team)
        if blocked.blocking_job_ids:
            return blocked.blocking_job_ids[:MAX_BLOCKING_JOBS]
        return self._largest_running(is_gpu_job=bool(shape.gpus))

    def _largest_running(self, *, is_gpu_job: bool, team: str | None = None) -> tuple[str, ...]:
        ids = [job_id for job_id, owner in self._running_by_size[is_gpu_job] if team is None or owner == team]
        return tuple(ids[:MAX_BLOCKING_JOBS])

    @cached_property
    def _running_by_size(self) -> dict[bool, list[tuple[str, str]]]:
        running = self._outcome.snapshot.running
        by_gpus = sorted((job for job in running if job.gpus), key=lambda job: (-job.gpus, -job.cpus, job.job_id))
        by_cpus = sorted(running, key=lambda job: (-job.cpus, job.job_id))
        return {
            True: [(job.job_id, job.team) for job in by_gpus],
            False: [(job.job_id, job.team) for job in by_cpus],
        }

    @cached_property
    def _all_usage(self) -> tuple[float, float]:
        """Usage of all teams, and the sum of the weights of those that wait or run."""
        outcome = self._outcome
        active = {job.team for job in outcome.snapshot.pending} | set(outcome.quotas.holding_teams)
        all_usage = math.fsum(outcome.ledger.team_usage.values())
        return all_usage, math.fsum(outcome.ledger.weight_of(team) for team in active)

    def _standing(self, team: str, user: str) -> Standing:
        if (team, user) not in self._standings:
            ledger = self._outcome.ledger
            all_usage, all_weights = self._all_usage
            usage = ledger.team_usage.get(team, 0.0)
            self._standings[team, user] = Standing(
                usage_fraction=usage / all_usage if all_usage else 0.0,
                entitled_fraction=ledger.weight_of(team) / all_weights,
                holding=self._holding(team),
            )
        return self._standings[team, user]


def _request(job: PendingJob) -> Request:
    needs = job.needs or NodeNeeds()
    amounts = (job.num_workers, job.gpus_per_worker, job.cpus_per_worker)
    return Request(*amounts, needs.gpu_kind, needs.min_gpu_memory_gb, dict(needs.labels))


def _finite(amount: float) -> float | None:
    return None if amount == math.inf else amount
