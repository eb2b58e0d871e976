"""The queue: every change of a job's state, each one conditional UPDATE.

Contract:
- Nothing here commits; a write joins the caller's transaction and is visible to nobody before it ends.
- Safe from any number of threads and processes: a claim is won by exactly one caller.
- `claim` returns a lease. Every later write of the runner names it and takes effect only while the row still carries
  its token and the lease has not expired by the database's clock; otherwise it raises LeaseLostError and the
  transaction must be rolled back. So a runner that was paused, cut off or replaced can change nothing.
- Terminal states stay: no call leaves them.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from services.clock import db_now
from services.errors import InvalidTransitionError, LeaseLostError, NotFoundError
from services.jobs import events
from services.jobs.models import Job, JobAttempt
from services.jobs.retry import RetryDecision
from services.jobs.states import TRANSITIONS, FailureKind, JobState, Wish

NOT_PLACED = "not_placed"
"""Outcome of an attempt that never got its resources."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to run one attempt of a job."""

    job_id: str
    token: str
    attempt: int


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """What a runner needs to know of the job it got."""

    lease: Lease
    kind: str
    team: str
    spec: dict[str, Any]


def claim(
    session: Session, job_id: str, *, runner: str, lease_s: float, placement: Sequence[str] = ()
) -> ClaimedJob | None:
    """Take a queued job that is due and start its next attempt; None if somebody else was faster.

    Args:
        session: open in a unit of work.
        job_id: the job to take.
        runner: name of the process that will run it.
        lease_s: seconds until the claim lapses unless renewed.
        placement: node of each worker, in rank order, as far as known.
    """
    token = secrets.token_hex(16)
    statement = (
        update(Job)
        .where(Job.id == job_id, Job.state == JobState.QUEUED, Job.scheduled_at <= db_now())
        .values(
            state=JobState.RUNNING,
            lease_token=token,
            lease_expires_at=db_now(lease_s),
            runner=runner,
            placement=list(placement),
            attempt=Job.attempt + 1,
            started_at=func.coalesce(Job.started_at, db_now()),
            wish=None,
            wish_at=None,
        )
        .returning(Job.attempt, Job.kind, Job.team, Job.spec)
        .execution_options(synchronize_session=False)
    )
    row = session.execute(statement).one_or_none()
    if row is None:
        return None
    attempt, kind, team, spec = row
    session.add(JobAttempt(job_id=job_id, number=attempt, runner=runner))
    events.record(session, job_id, "started", f"attempt {attempt} on {runner}", data={"attempt": attempt})
    return ClaimedJob(Lease(job_id, token, attempt), kind, team, spec)


def renew_lease(session: Session, lease: Lease, *, lease_s: float) -> Wish | None:
    """Extend the lease and return what somebody wants of the job.

    Raises:
        LeaseLostError: the lease expired or the job is somebody else's.
    """
    statement = (
        update(Job)
        .where(*_held(lease))
        .values(lease_expires_at=db_now(lease_s))
        .returning(Job.wish)
        .execution_options(synchronize_session=False)
    )
    row = session.execute(statement).one_or_none()
    if row is None:
        raise _lost(lease)
    return None if row.wish is None else Wish(row.wish)


def touch(session: Session, lease: Lease, **values: Any) -> None:
    """Write columns of the running job; with none, only check (and lock) the lease.

    Raises:
        LeaseLostError: the lease expired or the job is somebody else's.
    """
    _write(session, lease, values or {"lease_token": lease.token})


def read_wish(session: Session, lease: Lease) -> Wish | None:
    """Return what somebody wants of the job, without renewing the lease.

    Raises:
        LeaseLostError: the lease expired or the job is somebody else's.
    """
    row = session.execute(select(Job.wish).where(*_held(lease))).one_or_none()
    if row is None:
        raise _lost(lease)
    return None if row.wish is None else Wish(row.wish)


def merge_progress(session: Session, lease: Lease, position: dict[str, Any]) -> None:
    """Update the live position inside an epoch; only the runner writes it, so reading it first is safe.

    Raises:
        LeaseLostError: the lease expired or the job is somebody else's.
    """
    touch(session, lease)
    earlier = session.scalar(select(Job.progress).where(Job.id == lease.job_id)) or {}
    touch(session, lease, progress={**earlier, **position})


def complete(session: Session, lease: Lease, *, summary: dict[str, Any]) -> None:
    """End the job as succeeded.

    Raises:
        LeaseLostError: the lease expired or the job is somebody else's.
    """
    _write(session, lease, {**_ended(JobState.SUCCEEDED), "summary": summary})
    _end_attempt(session, lease, "succeeded")
    events.record(session, lease.job_id, "succeeded", f"attempt {lease.attempt} finished", data=summary)


def fail(
    session: Session,
    lease: Lease,
    *,
    kind: FailureKind,
    message: str,
    decision: RetryDecision,
    traceback: str | None = None,
) -> None:
    """End the attempt with a failure; the job is queued again or failed, as `decision` says.

    Raises:
        LeaseLostError: the lease expired or the job is somebody else's.
    """
    _write(session, lease, _after_failure(kind, message, decision))
    _record_failure(session, lease, kind, message, decision, traceback)


def expire(session: Session, lease: Lease, *, message: str, decision: RetryDecision) -> bool:
    """Take the job from a runner whose lease has expired; False if it was renewed or ended meanwhile.

    The job is queued again or failed as `decision` says; one that somebody wanted cancelled is cancelled.
    """
    return _take_back(session, lease, message, decision, Job.lease_expires_at <= db_now())


def revoke(session: Session, lease: Lease, *, message: str, decision: RetryDecision) -> bool:
    """Take the job from a runner that is known to be dead, whatever its lease; otherwise like `expire`."""
    return _take_back(session, lease, message, decision)


def finish_cancelled(session: Session, lease: Lease) -> None:
    """End a running job as cancelled, after its runner honoured the wish.

    Raises:
        LeaseLostError: the lease expired or the job is somebody else's.
    """
    _write(session, lease, _ended(JobState.CANCELLED))
    _end_attempt(session, lease, FailureKind.CANCELLED)
    events.record(session, lease.job_id, "cancelled", "stopped while running")


def release(session: Session, lease: Lease, *, outcome: FailureKind, message: str, to: JobState) -> None:
    """Give a running job back, to `queued` (preempted, its dispatcher drains) or to `paused`; costs no retry.

    Raises:
        LeaseLostError: the lease expired or the job is somebody else's.
    """
    _write(session, lease, {**_without_lease(), "state": to, "scheduled_at": db_now()})
    _end_attempt(session, lease, outcome, message)
    events.record(session, lease.job_id, str(to), message)


def postpone(session: Session, lease: Lease, *, delay_s: float, message: str) -> None:
    """Give a running job back unrun: its place was taken meanwhile. It costs no retry and is due after `delay_s`.

    Raises:
        LeaseLostError: the lease expired or the job is somebody else's.
    """
    _write(session, lease, {**_without_lease(), "state": JobState.QUEUED, "scheduled_at": db_now(delay_s)})
    _end_attempt(session, lease, NOT_PLACED, message)
    events.record(session, lease.job_id, NOT_PLACED, message)


def request_cancel(session: Session, job_id: str, *, actor: str) -> JobState:
    """Cancel a job that does not run, or ask its runner to stop; returns the state after the call.

    A second request while the first is being honoured changes nothing.

    Raises:
        NotFoundError: no such job.
        InvalidTransitionError: the job has already ended otherwise.
    """
    idle = [state for state, following in TRANSITIONS.items() if JobState.CANCELLED in following]
    idle.remove(JobState.RUNNING)
    at_once = update(Job).where(Job.id == job_id, Job.state.in_(idle)).values(_ended(JobState.CANCELLED))
    if _changed_one(session, at_once):
        events.record(session, job_id, "cancelled", "cancelled before it ran", actor=actor)
        return JobState.CANCELLED
    wish = (
        update(Job)
        .where(Job.id == job_id, Job.state == JobState.RUNNING, Job.wish.is_distinct_from(Wish.CANCEL))
        .values(wish=Wish.CANCEL, wish_at=db_now())
    )
    if _changed_one(session, wish):
        events.record(session, job_id, "cancel_requested", "the runner was asked to stop", actor=actor)
        return JobState.RUNNING
    state = session.scalar(select(Job.state).where(Job.id == job_id))
    if state is None:
        raise NotFoundError(f"no job {job_id}")
    if state not in (JobState.RUNNING, JobState.CANCELLED):
        raise InvalidTransitionError(f"job {job_id} is {state}; only queued, paused and running jobs can be cancelled")
    return JobState(state)


def request_preemption(session: Session, job_id: str, *, reason: str) -> bool:
    """Ask a running job to checkpoint and go back to the queue; False if it has ended or was asked for something."""
    statement = update(Job).where(Job.id == job_id, Job.state == JobState.RUNNING, Job.wish.is_(None))
    if not _changed_one(session, statement.values(wish=Wish.PREEMPT, wish_at=db_now())):
        return False
    events.record(session, job_id, "preempting", f"asked to save its state and go back to the queue: {reason}")
    return True


def has_queued(session: Session) -> bool:
    """Return whether any job waits and is due."""
    query = select(Job.id).where(Job.state == JobState.QUEUED, Job.scheduled_at <= db_now())
    return session.execute(query.limit(1)).first() is not None


def fail_queued(session: Session, job_id: str, *, kind: FailureKind, message: str) -> bool:
    """Fail a job that can never run; False if it is no longer queued."""
    values = {**_ended(JobState.FAILED), "failure_kind": kind, "failure_message": message}
    if not _changed_one(session, update(Job).where(Job.id == job_id, Job.state == JobState.QUEUED).values(values)):
        return False
    events.record(session, job_id, "failed", message, data={"kind": kind})
    return True


def _take_back(
    session: Session, lease: Lease, message: str, decision: RetryDecision, *conditions: ColumnElement[bool]
) -> bool:
    owned = (Job.id == lease.job_id, Job.lease_token == lease.token, *conditions)
    cancelled = update(Job).where(*owned, Job.wish == Wish.CANCEL).values(_ended(JobState.CANCELLED))
    if _changed_one(session, cancelled):
        _end_attempt(session, lease, FailureKind.CANCELLED, message)
        events.record(session, lease.job_id, "cancelled", message)
        return True
    kind = FailureKind.INFRASTRUCTURE
    if not _changed_one(session, update(Job).where(*owned).values(_after_failure(kind, message, decision))):
        return False
    _record_failure(session, lease, kind, message, decision, None)
    return True


def _held(lease: Lease) -> tuple[ColumnElement[bool], ...]:
    return (
        Job.id == lease.job_id,
        Job.state == JobState.RUNNING,
        Job.lease_token == lease.token,
        Job.lease_expires_at > db_now(),
    )


def _write(session: Session, lease: Lease, values: dict[str, Any]) -> None:
    if not _changed_one(session, update(Job).where(*_held(lease)).values(values)):
        raise _lost(lease)


def _changed_one(session: Session, statement: Any) -> bool:
    result = session.execute(statement.returning(Job.id).execution_options(synchronize_session=False))
    return result.one_or_none() is not None


def _lost(lease: Lease) -> LeaseLostError:
    return LeaseLostError(f"attempt {lease.attempt} no longer holds the lease of job {lease.job_id}")


def _without_lease() -> dict[str, Any]:
    return dict.fromkeys(("lease_token", "lease_expires_at", "runner", "placement", "wish", "wish_at"))


def _ended(state: JobState) -> dict[str, Any]:
    return {**_without_lease(), "state": state, "finished_at": db_now()}


def _after_failure(kind: FailureKind, message: str, decision: RetryDecision) -> dict[str, Any]:
    if decision.is_retry:
        return {**_without_lease(), "state": JobState.QUEUED, "scheduled_at": db_now(decision.delay_s)}
    return {**_ended(JobState.FAILED), "failure_kind": kind, "failure_message": message}


def _record_failure(
    session: Session,
    lease: Lease,
    kind: FailureKind,
    message: str,
    decision: RetryDecision,
    traceback: str | None,
) -> None:
    _end_attempt(session, lease, kind, message, traceback)
    event = "retried" if decision.is_retry else "failed"
    data = {"kind": kind, "attempt": lease.attempt, "delay_s": decision.delay_s, "decision": decision.reason}
    events.record(session, lease.job_id, event, message, data=data)


def _end_attempt(
    session: Session, lease: Lease, outcome: str, message: str | None = None, traceback: str | None = None
) -> None:
    statement = (
        update(JobAttempt)
        .where(JobAttempt.job_id == lease.job_id, JobAttempt.number == lease.attempt)
        .values(finished_at=db_now(), outcome=outcome, message=message, traceback=traceback)
        .execution_options(synchronize_session=False)
    )
    session.execute(statement)
