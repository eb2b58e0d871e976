"""The queue as dispatchers and runners use it: claim a job, keep it, and give it back or end it.

Contract:
- Nothing here commits; a write joins the caller's transaction and is visible to nobody before it ends.
- Safe from any number of threads and processes: a claim is won by exactly one caller.
- `claim` returns a lease. Every later write of the runner names it and takes effect only while the row still carries
  its token and the lease has not expired by the database's clock; otherwise it raises LeaseLostError and the
  transaction must be rolled back. So a runner that was paused, cut off or replaced can change nothing.
- An attempt that is given back (released, failed with a retry, taken from a dead runner) goes where the wishes of the
  moment say: cancelled, paused or queued; and nowhere once its running time is used up.
- Terminal states stay: nothing here leaves them; only a person's retry (`wishes`) or a study's extension does.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pydantic import ValidationError
from sqlalchemy import ColumnElement, Executable, Float, Update, bindparam, func, select, update
from sqlalchemy.orm import Session

from xsam.services.db.clock import db_now
from xsam.services.errors import LeaseLostError
from xsam.services.jobs import attempts, events
from xsam.services.jobs.attempts import NOT_PLACED, Ending
from xsam.services.jobs.models import KIND_STUDY, Job, JobAttempt
from xsam.services.jobs.retry import RetryDecision
from xsam.services.jobs.states import FailureKind, JobState, Wish, check_transition
from xsam.services.specs.job import JobSpec

_NO_RETRY = RetryDecision(False, 0.0, "it would be refused again")


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
    spec: JobSpec | None
    """None for a study: its runner reads it with the study's other rows."""

    @property
    def job_spec(self) -> JobSpec:
        """The specification of a job that trains.

        Raises:
            TypeError: it is a study.
        """
        if self.spec is None:
            raise TypeError(f"job {self.lease.job_id} is a {self.kind}, which trains nothing itself")
        return self.spec


def claim(
    session: Session, job_id: str, *, runner: str, lease_s: float, placement: Sequence[str] = ()
) -> ClaimedJob | None:
    """Take a queued job that is due and start its next attempt; None if somebody else was faster.

    A job whose stored specification this version can't read fails instead, and None is returned.

    Args:
        session: open in a unit of work.
        job_id: the job to take.
        runner: name of the process that will run it.
        lease_s: seconds until the claim lapses unless renewed.
        placement: node of each worker, in rank order, as far as known.
    """
    check_transition(JobState.QUEUED, JobState.RUNNING)
    token = secrets.token_hex(16)
    statement = (
        update(Job)
        .where(Job.id == job_id, Job.state == JobState.QUEUED, Job.scheduled_at <= db_now())
        .values(
            state=JobState.RUNNING,
            state_since=db_now(),
            deadline_at=db_now(Job.max_run_s - Job.ran_s),
            reported_at=db_now(),
            lease_token=token,
            lease_expires_at=db_now(lease_s),
            runner=runner,
            placement=list(placement),
            attempt=Job.attempt + 1,
            started_at=func.coalesce(Job.started_at, db_now()),
            wish=None,
            wish_at=None,
        )
        .returning(Job.attempt, Job.kind, Job.spec)
        .execution_options(synchronize_session=False)
    )
    row = session.execute(statement).one_or_none()
    if row is None:
        return None
    attempt, kind, spec = row
    lease = Lease(job_id, token, attempt)
    session.add(JobAttempt(job_id=job_id, number=attempt, runner=runner, placement=list(placement)))
    events.record(session, job_id, "started", f"attempt {attempt} on {runner}", data={"attempt": attempt})
    try:
        return ClaimedJob(lease, kind, None if kind == KIND_STUDY else JobSpec.model_validate(spec))
    except ValidationError as e:
        message = f"the stored specification is not valid for this version: {e}"
        fail(session, lease, kind=FailureKind.USER, message=message, decision=_NO_RETRY)
        return None


def renew_lease(session: Session, lease: Lease, *, lease_s: float) -> Wish | None:
    """Extend the lease and return what somebody wants of the job. For a transaction of its own: see `_renewal`.

    Raises:
        LeaseLostError: the lease expired or the job is somebody else's.
    """
    known = {"held_id": lease.job_id, "held_token": lease.token, "lease_s": lease_s}
    return _wish(session.execute(_renewal(session.get_bind().dialect.name), known).one_or_none(), lease)


def touch(session: Session, lease: Lease, **values: Any) -> None:
    """Note a sign of progress and write columns of the running job; with none, this checks (and locks) the lease.

    Raises:
        LeaseLostError: the lease expired or the job is somebody else's.
    """
    written = {f"new_{name}": value for name, value in values.items()}
    session.flush()
    known = {"held_id": lease.job_id, "held_token": lease.token, **written}
    if session.execute(_touch_statement(tuple(values)), known).one_or_none() is None:
        raise _lost(lease)


def read_wish(session: Session, lease: Lease) -> Wish | None:
    """Return what somebody wants of the job, without renewing the lease.

    Raises:
        LeaseLostError: the lease expired or the job is somebody else's.
    """
    known = {"held_id": lease.job_id, "held_token": lease.token}
    return _wish(session.execute(_WISH, known).one_or_none(), lease)


def merge_progress(session: Session, lease: Lease, position: dict[str, Any]) -> None:
    """Update the live position inside an epoch; only the runner writes it, so reading it first is safe.

    Raises:
        LeaseLostError: the lease expired or the job is somebody else's.
    """
    touch(session, lease)
    earlier = session.scalar(select(Job.progress).where(Job.id == lease.job_id)) or {}
    touch(session, lease, progress={**earlier, **position})


def note_start(  # noqa: PLR0913 - what an attempt says of its beginning
    session: Session,
    lease: Lease,
    *,
    first_step: int,
    first_epoch: int,
    steps_per_epoch: int,
    num_parameters: int,
    environment: dict[str, str],
    processes: dict[str, Any],
) -> None:
    """Note where the attempt begins to train, on what, and in which processes.

    Raises:
        LeaseLostError: the lease expired or the job is somebody else's.
    """
    position = {"step": first_step - 1, "epoch": first_epoch, "steps_per_epoch": steps_per_epoch}
    merge_progress(session, lease, position)
    session.execute(_own_attempt(lease).values(environment=environment))
    where = "from the start" if first_step == 1 else f"from epoch {first_epoch}, step {first_step}"
    data = {
        "steps_per_epoch": steps_per_epoch,
        "first_step": first_step,
        "first_epoch": first_epoch,
        "num_parameters": num_parameters,
        **processes,
    }
    events.record(session, lease.job_id, "training", f"attempt {lease.attempt} trains {where}", data=data)


def note_first_step(session: Session, lease: Lease) -> None:
    """Note that the attempt has taken its first step.

    Raises:
        LeaseLostError: the lease expired or the job is somebody else's.
    """
    touch(session, lease)
    session.execute(_own_attempt(lease).values(first_step_at=db_now()))


def complete(session: Session, lease: Lease, *, summary: dict[str, Any]) -> None:
    """End the job as succeeded; without a summary where it has trained nothing.

    Raises:
        LeaseLostError: the lease expired or the job is somebody else's.
    """
    best_value = summary.get("best_value")
    columns = {
        "summary": summary or None,
        "best_value": summary.get("best_accuracy") if best_value is None else best_value,
        "grad_evals": summary.get("grad_evals"),
    }
    attempts.conclude(session, _lock(session, lease), JobState.SUCCEEDED, Ending("succeeded"), **columns)
    events.record(session, lease.job_id, "succeeded", f"attempt {lease.attempt} finished", data=summary)


def fail(
    session: Session,
    lease: Lease,
    *,
    kind: FailureKind,
    message: str,
    traceback: str | None = None,
    decision: RetryDecision | None = None,
) -> None:
    """End the attempt with a failure; the job is given back or failed, as `decision` or its own policy says.

    Raises:
        LeaseLostError: the lease expired or the job is somebody else's.
    """
    attempts.fail(session, _lock(session, lease), Ending(kind, message, traceback), decision)


def revoke(session: Session, lease: Lease, *, message: str) -> bool:
    """Take the job from a runner that fell silent, died or does not obey; False if the lease ended meanwhile.

    The job is given back or failed as its retry policy says; one that somebody wanted cancelled is cancelled.
    """
    job = attempts.lock(session, Job.id == lease.job_id, Job.lease_token == lease.token)
    if job is None:
        return False
    if job.wish == Wish.CANCEL:
        attempts.cancel(session, job, message)
    else:
        attempts.fail(session, job, Ending(FailureKind.INFRASTRUCTURE, message))
    return True


def finish_cancelled(session: Session, lease: Lease) -> None:
    """End a running job as cancelled, after its runner honoured the wish.

    Raises:
        LeaseLostError: the lease expired or the job is somebody else's.
    """
    attempts.cancel(session, _lock(session, lease), "stopped while running")


def release(session: Session, lease: Lease, *, outcome: FailureKind, message: str) -> JobState:
    """Give a running job back, its state saved: it was asked to, or its dispatcher ends. It costs no retry.

    Raises:
        LeaseLostError: the lease expired or the job is somebody else's.
    """
    return attempts.give_back(session, _lock(session, lease), Ending(outcome, message), event="queued")


def postpone(session: Session, lease: Lease, *, delay_s: float, message: str) -> JobState:
    """Give a running job back unrun: its place was taken meanwhile. It costs no retry and is due after `delay_s`.

    Raises:
        LeaseLostError: the lease expired or the job is somebody else's.
    """
    ending = Ending(NOT_PLACED, message)
    return attempts.give_back(session, _lock(session, lease), ending, event=NOT_PLACED, delay_s=delay_s)


_HAS_QUEUED = select(Job.id).where(Job.state == JobState.QUEUED, Job.scheduled_at <= db_now()).limit(1)


def has_queued(session: Session) -> bool:
    """Return whether any job waits and is due."""
    return session.execute(_HAS_QUEUED).first() is not None


def fail_idle(session: Session, job_id: str, *, kind: FailureKind, message: str) -> bool:
    """Fail a job that waits and should no longer; False if it is neither queued nor paused."""
    failure, idle = {"failure_kind": kind, "failure_message": message}, (JobState.QUEUED, JobState.PAUSED)
    if not attempts.move_all(session, Job.id == job_id, idle, JobState.FAILED, **failure):
        return False
    events.record(session, job_id, "failed", message, data={"kind": kind})
    return True


def _lock(session: Session, lease: Lease) -> Job:
    job = attempts.lock(session, *_held(lease))
    if job is None:
        raise _lost(lease)
    return job


def _own_attempt(lease: Lease) -> Update:
    return update(JobAttempt).where(JobAttempt.job_id == lease.job_id, JobAttempt.number == lease.attempt)


def _held(lease: Lease) -> tuple[ColumnElement[bool], ...]:
    return _held_by(lease.job_id, lease.token)


def _held_by(job_id: Any, token: Any) -> tuple[ColumnElement[bool], ...]:
    return (
        Job.id == job_id,
        Job.state == JobState.RUNNING,
        Job.lease_token == token,
        Job.lease_expires_at > db_now(),
    )


def _wish(row: Any, lease: Lease) -> Wish | None:
    if row is None:
        raise _lost(lease)
    return None if row.wish is None else Wish(row.wish)


_HELD = _held_by(bindparam("held_id"), bindparam("held_token"))
_JOBS: Any = Job.__table__
_WISH = select(_JOBS.c.wish).where(*_HELD)


@lru_cache(maxsize=2)
def _renewal(dialect: str) -> Executable:
    """Return the same object each time, without the ORM: every running job asks for it again and again.

    PostgreSQL is not waited for until the renewal is on disk: should it be lost in a crash, the next one comes anyway.
    """
    renewed = _JOBS.c.lease_expires_at.name
    statement = update(_JOBS).where(*_HELD).values({renewed: db_now(bindparam("lease_s", type_=Float()))})
    if dialect == "postgresql":
        statement = statement.where(func.set_config("synchronous_commit", "off", True) == "off")
    return statement.returning(_JOBS.c.wish)


@lru_cache(maxsize=64)
def _touch_statement(names: tuple[str, ...]) -> Executable:
    """Return the same object each time: the commonest write of all should not be built anew each time."""
    jobs = Job.__table__.c
    values = {name: bindparam(f"new_{name}", type_=jobs[name].type) for name in names}
    held = _held_by(bindparam("held_id"), bindparam("held_token"))
    statement = update(Job).where(*held).values(reported_at=db_now(), **values)
    return statement.returning(Job.id).execution_options(synchronize_session=False)


def _lost(lease: Lease) -> LeaseLostError:
    return LeaseLostError(f"attempt {lease.attempt} no longer holds the lease of job {lease.job_id}")
