"""The scheduling policy: one pure function from a snapshot to a plan.

The rules, in the order in which they apply to a job:

1.  Jobs before their time, and jobs that can never fit are out of line.
2.  The line: priority; then jobs that something was promised to before (`Plan.holders`); then fair share between teams
    and inside a team between users; then time of submission, then job id.
3.  A team never holds more than its quota. What its first quota-blocked job needs is kept from its later ones.
4.  A gang starts as a whole or not at all; each worker fits on one node.
5.  A blocked job waits for jobs that are leaving anyway; else it preempts strictly lower priorities, if that makes it
    fit; else the first such job gets a reservation, and those behind start only if they do not delay it.

Nothing here reads a clock, a database or a random number: the same snapshot gives the same plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from xsam.services.scheduling.policy.backfill import End, known_end, make_reservation, sort_ends, time_bound_s
from xsam.services.scheduling.policy.capacity import Cluster, Shape, shape_of
from xsam.services.scheduling.policy.explain import OUT_OF_LINE, Blocked, Outcome, Reasons
from xsam.services.scheduling.policy.free_nodes import Board
from xsam.services.scheduling.policy.order import ShareLedger, line_up
from xsam.services.scheduling.policy.preemption import VictimFinder
from xsam.services.scheduling.policy.quotas import ByKind, QuotaBook, amount_of, amount_of_running, kind_of
from xsam.services.scheduling.policy.reasons import ReasonCode
from xsam.services.scheduling.policy.types import PendingJob, Placement, Preemption, Promise, Snapshot
from xsam.services.settings import SchedulingSettings

DEFAULT_CONFIG = SchedulingSettings()
_NOT_YET_ELIGIBLE = Blocked(ReasonCode.NOT_YET_ELIGIBLE)


@dataclass(frozen=True, slots=True)
class Plan:
    """One decision.

    Args:
        placements: In the order in which the jobs were served.
        preemptions: A job that preempts is not placed yet: it starts in a later plan, once the victims are gone.
        holders: Jobs that resources or quota are kept for; to be passed to the next decision.
        promises: What of the nodes is kept for whom.
        reasons: Why each other queued job does not start. Computed when first read, from the state of this plan.
    """

    placements: tuple[Placement, ...]
    preemptions: tuple[Preemption, ...]
    holders: tuple[str, ...]
    promises: tuple[Promise, ...]
    reasons: Reasons


def plan(snapshot: Snapshot, config: SchedulingSettings = DEFAULT_CONFIG) -> Plan:
    """Decide which queued jobs start now, which running jobs make room, and why the others wait.

    Args:
        snapshot: Queue, running jobs, nodes, quotas, usage and time. Must not be changed while `Plan.reasons` is used.
        config: The numbers of the policy.

    Returns:
        The plan; every job in `snapshot.pending` has either a placement or a reason.
    """
    return _Planner(snapshot, config).run()


class _Planner:
    """The state of one decision."""

    def __init__(self, snapshot: Snapshot, config: SchedulingSettings) -> None:
        self._snapshot = snapshot
        self._config = config
        # Sums of floats depend on the order of their terms: one fixed order makes the order of the input irrelevant.
        self._running = sorted(snapshot.running, key=lambda job: job.job_id)
        self._cluster = Cluster(snapshot.nodes, self._running)
        self._board = Board(self._cluster, (job.job_id for job in self._running if job.is_stopping))
        kinds = {node.node_id: node.traits.gpu_kind.lower() for node in snapshot.nodes}
        self._quotas = QuotaBook(snapshot.quotas, self._running, self._board.leaving, kinds)
        self._ledger = ShareLedger(snapshot.shares, self._running, snapshot.now, config)
        self._victims = VictimFinder(self._running, self._board, snapshot.now, config)
        self._blocked: dict[tuple[str, Shape], Blocked] = {}
        self._feasible: dict[Shape, bool] = {}
        self._without_victims: set[Shape] = set()
        self._reserved_start: datetime | None = None
        self._quota_kept_for: dict[str, list[str]] = {}
        self._teams_at_quota: set[str] = set()
        self._num_reserved = 0
        self._known_ends: list[End] | None = None
        self._placements: list[Placement] = []
        self._placed_ends: list[End] = []
        self._preemptions: list[Preemption] = []
        self._num_preempting = 0
        self._holders: list[str] = []
        self._promises: list[Promise] = []
        self._waiting: list[PendingJob] = []
        self._blocked_by: list[Blocked] = []

    def run(self) -> Plan:
        for job in self._line():
            # What stopped a request of a team stops the same request behind it: free resources and quota only shrink.
            blocked = self._blocked.get((job.team, shape_of(job)))
            if blocked is None or (blocked.may_end_in_time and self._ends_in_time(job)):
                blocked = self._serve(job)
            if blocked is not None:
                self._wait(job, blocked)
        outcome = Outcome(
            self._snapshot,
            self._config,
            self._cluster,
            self._board,
            self._quotas,
            self._ledger,
            self._waiting,
            self._blocked_by,
        )
        holders = self._all_holders()
        return Plan(
            placements=tuple(self._placements),
            preemptions=tuple(self._preemptions),
            holders=holders,
            promises=tuple(self._promises),
            reasons=Reasons(outcome, holders),
        )

    def _all_holders(self) -> tuple[str, ...]:
        """Return earlier promises not fulfilled yet, in their order, then the new ones."""
        if not self._snapshot.holders:
            return tuple(self._holders)
        before = set(self._snapshot.holders)
        pairs = zip(self._waiting, self._blocked_by, strict=True)
        still = {job.job_id for job, by in pairs if job.job_id in before and by.code not in OUT_OF_LINE}
        promised = [job_id for job_id in self._snapshot.holders if job_id in still]
        return tuple(dict.fromkeys(promised + self._holders))

    def _line(self) -> Iterator[PendingJob]:
        """Return the jobs that are in line, in order; note the others."""
        now = self._snapshot.now
        in_line = []
        for job in self._snapshot.pending:
            if job.eligible_at is not None and job.eligible_at > now:
                self._wait(job, _NOT_YET_ELIGIBLE)
            else:
                in_line.append(job)
        return self._patient_first(in_line)

    def _patient_first(self, jobs: list[PendingJob]) -> Iterator[PendingJob]:
        """Yield the promised jobs that waited too long, in the order of their promises, then all others by rank."""
        holders = self._snapshot.holders
        rank = {job_id: position for position, job_id in enumerate(holders)}
        first = [job for job in jobs if job.job_id in rank and self._is_out_of_patience(job)] if rank else []
        first.sort(key=lambda job: rank[job.job_id])
        yield from first
        passed = {job.job_id for job in first}
        rest = [job for job in jobs if job.job_id not in passed] if first else jobs
        yield from line_up(rest, self._ledger, holders)

    def _wait(self, job: PendingJob, blocked: Blocked) -> None:
        # Two lists of what exists anyway, not one of new pairs, which the garbage collector would have to walk.
        self._waiting.append(job)
        self._blocked_by.append(blocked)

    def _serve(self, job: PendingJob) -> Blocked | None:
        """Place a job, or do what its rank entitles it to; return what blocks it."""
        shape = shape_of(job)
        never = self._never(job, shape)
        if never is not None:
            return self._remember(job, never)
        now, later = self._quotas.open_now(job.team, shape), self._quotas.open_later(job.team, shape)
        has_quota = self._quotas.left(job.team, kind_of(shape)).covers(amount_of(shape)) and self._is_feasible(now)
        if has_quota and self._place(job, now):
            return None
        soon = self._wait_for_leaving(job, later) or self._preempt(job, later)
        if soon is not None:
            return soon
        return self._block_on_nodes(job, now) if has_quota else self._block_on_quota(job, shape)

    def _never(self, job: PendingJob, shape: Shape) -> Blocked | None:
        if not self._cluster.nodes:
            return Blocked(ReasonCode.NO_NODES)
        if not self._quotas.limit(job.team, kind_of(shape)).covers(amount_of(shape)):
            return Blocked(ReasonCode.INFEASIBLE_QUOTA)
        if not self._is_feasible(shape):
            return Blocked(ReasonCode.INFEASIBLE_CLUSTER)
        is_allowed = self._is_feasible(self._quotas.open_ever(job.team, shape))
        return None if is_allowed else Blocked(ReasonCode.INFEASIBLE_QUOTA)

    def _is_feasible(self, shape: Shape) -> bool:
        if shape not in self._feasible:
            self._feasible[shape] = self._cluster.is_feasible(shape)
        return self._feasible[shape]

    def _remember(self, job: PendingJob, blocked: Blocked) -> Blocked:
        self._blocked[job.team, shape_of(job)] = blocked
        return blocked

    def _place(self, job: PendingJob, shape: Shape) -> bool:
        board = self._board
        if board.has_reservation and not self._config.is_backfill_on:
            return False
        indices, in_time = board.open.find(shape), False
        if indices is None and board.has_reservation and self._ends_in_time(job):
            indices, in_time = board.now.find(shape), True
        if indices is None:
            return False
        board.place(job.job_id, shape, indices, ends_in_time=in_time)
        self._quotas.start(job.team, amount_of(shape), self._kinds_on(job, shape, indices))
        self._ledger.charge(job)
        self._placements.append(Placement(job.job_id, self._cluster.node_ids(indices)))
        bound_s = time_bound_s(job, self._config)
        if bound_s is not None and not board.has_reservation:
            self._placed_ends.append(End(self._snapshot.now + timedelta(seconds=bound_s), job.job_id))
        return True

    def _ends_in_time(self, job: PendingJob) -> bool:
        if self._reserved_start is None:
            return False
        bound_s = time_bound_s(job, self._config)
        return bound_s is not None and self._snapshot.now + timedelta(seconds=bound_s) <= self._reserved_start

    def _wait_for_leaving(self, job: PendingJob, shape: Shape) -> Blocked | None:
        """Keep room for a job that fits once the jobs that were asked to stop have stopped."""
        board, amount = self._board, amount_of(shape)
        if not board.leaving or not self._quotas.left_later(job.team, kind_of(shape)).covers(amount):
            return None
        indices = board.later.find(shape)
        if indices is None:
            return None
        on_nodes = {occupant.job_id for index in indices for occupant in self._cluster.occupants[index]}
        self._quotas.keep_later(job.team, amount, self._kinds_on(job, shape, indices))
        self._quota_kept_for.setdefault(job.team, []).append(job.job_id)
        board.keep_later(job.job_id, shape, indices)
        self._ledger.charge(job)
        self._holders.append(job.job_id)
        waits_for = tuple(sorted(board.leaving & on_nodes)) or tuple(sorted(board.leaving))
        starts_at = self._snapshot.now + timedelta(seconds=self._config.stop_grace_s)
        self._promises.append(Promise(job.job_id, self._names(indices), starts_at))
        return Blocked(ReasonCode.PREEMPTING, waits_for, starts_at)

    def _preempt(self, job: PendingJob, shape: Shape) -> Blocked | None:
        config = self._config
        if not config.is_preemption_on or self._num_preempting >= config.max_preempting_jobs_per_plan:
            return None
        if shape in self._without_victims:
            return None
        victims = self._victims.find(job, shape, self._quotas)
        if victims is None:
            if self._quotas.left_later(job.team, kind_of(shape)).covers(amount_of(shape)):
                self._without_victims.add(shape)
            return None
        for victim in victims:
            self._quotas.leave(victim.team, amount_of_running(victim), self._quotas.kinds_of_running(victim))
            self._preemptions.append(Preemption(victim.job_id, job.job_id))
        self._board.evict(victim.job_id for victim in victims)
        self._num_preempting += 1
        return self._wait_for_leaving(job, shape)

    def _block_on_quota(self, job: PendingJob, shape: Shape) -> Blocked:
        kept_for = self._quota_kept_for.setdefault(job.team, [])
        blocked = Blocked(ReasonCode.TEAM_QUOTA, tuple(kept_for))
        if job.team not in self._teams_at_quota:
            self._teams_at_quota.add(job.team)
            self._quotas.keep(job.team, amount_of(shape), kind_of(shape))
            kept_for.append(job.job_id)
            self._holders.append(job.job_id)
        return self._remember(job, blocked)

    def _block_on_nodes(self, job: PendingJob, shape: Shape) -> Blocked:
        reserved = self._reserve(job, shape) if self._num_reserved < self._config.max_reservations else None
        if reserved is not None:
            return reserved
        may_end_in_time = self._config.is_backfill_on and self._board.now.find(shape) is not None
        return self._remember(job, Blocked(ReasonCode.INSUFFICIENT_RESOURCES, may_end_in_time=may_end_in_time))

    def _reserve(self, job: PendingJob, shape: Shape) -> Blocked | None:
        """Reserve nodes that no other job has reserved; None if there are not enough of them."""
        board = self._board
        ends = () if self._is_out_of_patience(job) else self._ends()
        made = make_reservation(self._cluster, board.later, shape, ends, board.leaving, board.reserved)
        if made is None:
            return None
        board.reserve(job.job_id, made.extra, has_start=made.starts_at is not None)
        self._num_reserved += 1
        self._holders.append(job.job_id)
        self._promises.append(Promise(job.job_id, self._names(made.extra), made.starts_at))
        if made.starts_at is not None:
            self._reserved_start = min(made.starts_at, self._reserved_start or made.starts_at)
        return Blocked(ReasonCode.INSUFFICIENT_RESOURCES, starts_at=made.starts_at)

    def _kinds_on(self, job: PendingJob, shape: Shape, indices: Sequence[int]) -> ByKind:
        return self._quotas.kinds_on(job.team, shape.gpus, self._cluster.node_ids(indices))

    def _names(self, indices: Iterable[int]) -> tuple[str, ...]:
        return tuple(self._cluster.node_ids(sorted(set(indices))))

    def _is_out_of_patience(self, job: PendingJob) -> bool:
        waits_since = max(job.submitted_at, job.eligible_at or job.submitted_at)
        return (self._snapshot.now - waits_since).total_seconds() >= self._config.patience_s

    def _ends(self) -> list[End]:
        """Return the known ends of running jobs and of those that this plan started before anything was reserved."""
        if self._known_ends is None:
            ends = list(self._placed_ends)
            for running in self._running:
                at = known_end(running, self._snapshot.now)
                if at is not None:
                    ends.append(End(at, running.job_id))
            self._known_ends = sort_ends(ends)
        return self._known_ends
