"""The reaper: whatever has been in one state for too long is taken back, asked to stop, or ended.

A dispatcher calls `reap` every turn where `has_due` says so. Together with the leases it leaves no state in which a
job could stay for ever:
- running, its runner silent: the lease expires, the job goes on elsewhere;
- running, asked to stop and not stopping: its lease is revoked, so its runner ends itself, whoever started it;
- running without any progress, or longer than allowed: asked to save its state and come back;
- queued or paused for too long: failed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

from sqlalchemy import ColumnElement, ScalarSelect, Select, and_, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from xsam.services.db.clock import db_now
from xsam.services.jobs import attempts, queue, wishes
from xsam.services.jobs.models import KIND_STUDY, Job
from xsam.services.jobs.queue import Lease
from xsam.services.jobs.states import FailureKind, JobState


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a job may stay as it is before the reaper acts.

    Args:
        stop_s: after a wish, until its runner is given up.
        silence_s: running without any progress.
        run_s: running time of jobs that set no `limits.max_run_s`.
        queue_s: in the queue, since it was due.
        pause_s: paused.
    """

    stop_s: float
    silence_s: float
    run_s: float
    queue_s: float
    pause_s: float


def has_due(session: Session, patience: Patience) -> bool:
    """Return whether `reap` would find work; a cheap look by index that takes no lock."""
    return bool(session.execute(_look(patience)).scalar_one())


@lru_cache(maxsize=8)
def _look(patience: Patience) -> Select[tuple[bool]]:
    """Return the same object each time: a dispatcher asks ten times a second, and building it takes milliseconds."""
    return select(_Overdue.under(patience).any())


def reap(session: Session, patience: Patience, *, limit: int = 100) -> list[Lease]:
    """Act on every job that is overdue, at most `limit` of each sort, and return the leases that ended."""
    due = _Overdue.under(patience)
    ended = list(_take_back(session, due.expired, "runner {} stopped renewing its lease", limit))
    ended += _take_back(session, due.unwilling, "it did not stop when it was asked to; its processes are ended", limit)
    for job in _locked(session, due.overlong, limit):
        if job.max_run_s is None:
            _limit_run(session, job, patience.run_s)
        wishes.request_preemption(session, job.id, reason="its running time is used up")
    for job in _locked(session, due.silent, limit):
        wishes.request_preemption(session, job.id, reason=f"no progress for {patience.silence_s:g} s")
    for job in _locked(session, due.waited, limit, by=Job.deadline_at):
        _time_out(session, job, f"it waited in the queue for more than limits.max_queue_s of {job.max_queue_s:g} s")
    for job in _locked(session, due.forgotten, limit, by=Job.state_since):
        _time_out(session, job, f"it waited in the queue for more than {patience.queue_s:g} s")
    for job in _locked(session, due.paused, limit, by=Job.state_since):
        _time_out(session, job, f"it was paused for more than {patience.pause_s:g} s")
    return ended


def running_leases(session: Session) -> list[tuple[Lease, str]]:
    """Return the lease of every running job with the name of the dispatcher that placed it."""
    jobs = session.scalars(select(Job).where(Job.state == JobState.RUNNING))
    return [(_lease_of(job), job.runner or "") for job in jobs]


def fail_infrastructure(session: Session, lease: Lease, *, message: str) -> None:
    """End an attempt whose runner is known to be dead, without waiting for its lease; nothing if it ended already."""
    queue.revoke(session, lease, message=message)


@dataclass(frozen=True, slots=True)
class _Overdue:
    """Which jobs each rule is about; every condition is answered by an index, whatever the length of the queue."""

    expired: ColumnElement[bool]
    unwilling: ColumnElement[bool]
    overlong: ColumnElement[bool]
    silent: ColumnElement[bool]
    waited: ColumnElement[bool]
    forgotten: ColumnElement[bool]
    paused: ColumnElement[bool]

    @classmethod
    def under(cls, patience: Patience) -> Self:
        running, queued, paused = (Job.state == s for s in (JobState.RUNNING, JobState.QUEUED, JobState.PAUSED))
        # A study only waits for its trials, for as long as they take; each of those has these deadlines itself.
        unasked = and_(running, Job.wish.is_(None), Job.kind != KIND_STUDY)
        ran_out = and_(Job.max_run_s.is_(None), Job.state_since <= db_now(-patience.run_s))
        return cls(
            expired=and_(running, Job.lease_expires_at <= db_now()),
            unwilling=and_(running, Job.wish_at <= db_now(-patience.stop_s)),
            overlong=and_(unasked, or_(Job.deadline_at <= db_now(), ran_out)),
            silent=and_(unasked, Job.reported_at <= db_now(-patience.silence_s)),
            waited=and_(queued, Job.deadline_at <= db_now()),
            forgotten=and_(queued, Job.state_since <= db_now(-patience.queue_s)),
            paused=and_(paused, Job.state_since <= db_now(-patience.pause_s)),
        )

    def any(self) -> ColumnElement[bool]:
        # Ordered by the index that answers them: an EXISTS is planned as if every third job were overdue, and scans.
        by_since = (self.expired, self.unwilling, self.overlong, self.silent, self.forgotten, self.paused)
        return or_(
            _first(self.waited, Job.deadline_at).is_not(None),
            *(_first(condition, Job.state_since).is_not(None) for condition in by_since),
        )


def _first(condition: ColumnElement[bool], by: InstrumentedAttribute[Any]) -> ScalarSelect[str]:
    return select(Job.id).where(condition).order_by(by).limit(1).scalar_subquery()


def _take_back(session: Session, condition: ColumnElement[bool], message: str, limit: int) -> Iterator[Lease]:
    for job in _locked(session, condition, limit):
        lease = _lease_of(job)
        if queue.revoke(session, lease, message=message.format(job.runner)):
            yield lease


def _locked(
    session: Session, condition: ColumnElement[bool], limit: int, *, by: InstrumentedAttribute[Any] = Job.team
) -> Sequence[Job]:
    """Return overdue jobs with their rows locked; those that another transaction holds are left for the next look.

    Running ones by team and user: their usage rows are locked in this order, so that two transactions can't wait for
    each other. Waiting ones by the index that finds them.
    """
    query = select(Job).where(condition).order_by(by, Job.submitted_by, Job.id).limit(limit)
    return session.scalars(query.with_for_update(skip_locked=True).execution_options(populate_existing=True)).all()


def _limit_run(session: Session, job: Job, max_run_s: float) -> None:
    values = {"max_run_s": max_run_s}
    attempts.changed_one(session, update(Job).where(Job.id == job.id, Job.state == JobState.RUNNING).values(values))


def _time_out(session: Session, job: Job, message: str) -> None:
    queue.fail_idle(session, job.id, kind=FailureKind.TIMED_OUT, message=message)


def _lease_of(job: Job) -> Lease:
    return Lease(job.id, job.lease_token or "", job.attempt)
