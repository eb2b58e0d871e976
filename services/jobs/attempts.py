"""How an attempt ends: where its job goes, what the attempt's row says, what it used. Callers hold the job's row lock.

One place for all endings, so that none forgets the usage, the wishes or the running time.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from xsam.services.db.clock import db_now
from xsam.services.jobs import events, retry
from xsam.services.jobs.models import Job, JobAttempt
from xsam.services.jobs.retry import RetryDecision
from xsam.services.jobs.states import TERMINAL_STATES, FailureKind, JobState, Wish
from xsam.services.specs.job import RetryPolicy
from xsam.services.usage import ledger
from xsam.services.usage.ledger import Allocation

NOT_PLACED = "not_placed"
"""Outcome of an attempt that never got its resources."""


@dataclass(frozen=True, slots=True)
class Ending:
    """What the row of an ended attempt says."""

    outcome: str
    """`succeeded`, a kind of failure, or NOT_PLACED."""
    message: str | None = None
    traceback: str | None = None


def lock(session: Session, *conditions: ColumnElement[bool]) -> Job | None:
    """Return the running job that meets the conditions, its row locked until the transaction ends; None if none does.

    The lock makes what is read here (the wish above all) true until the write that depends on it.
    """
    query = select(Job).where(Job.state == JobState.RUNNING, *conditions)
    return session.scalar(query.with_for_update().execution_options(populate_existing=True))


def fail(session: Session, job: Job, failure: Ending, decision: RetryDecision | None = None) -> JobState:
    """End the attempt with a failure: the job is given back or has failed, as `decision` or its own policy says."""
    decision = decision or decide(session, job, FailureKind(failure.outcome))
    if decision.is_retry:
        return give_back(session, job, failure, event="retried", delay_s=decision.delay_s, why=decision)
    return _fail_for_good(session, job, failure, decision)


def cancel(session: Session, job: Job, message: str) -> JobState:
    """End the attempt and the job as cancelled."""
    conclude(session, job, idle(JobState.CANCELLED), Ending(FailureKind.CANCELLED, message))
    events.record(session, job.id, "cancelled", message)
    return JobState.CANCELLED


def give_back(
    session: Session,
    job: Job,
    ending: Ending,
    *,
    event: str,
    delay_s: float = 0.0,
    why: RetryDecision | None = None,
) -> JobState:
    """End the attempt of a job that is to go on, and return the state it goes to.

    The wish of the moment decides, not the one that the runner honoured: a pause may have been withdrawn, or a cancel
    may have come, since. A job whose running time is used up goes nowhere but to its end.
    """
    if job.wish == Wish.CANCEL:
        return cancel(session, job, ending.message or "")
    if job.max_run_s is not None and job.ran_s + _seconds(session, job) >= job.max_run_s:
        return _time_out(session, job)
    if job.wish == Wish.PAUSE:
        conclude(session, job, idle(JobState.PAUSED), ending)
        events.record(session, job.id, "paused", ending.message or "")
        return JobState.PAUSED
    conclude(session, job, queued(delay_s), ending)
    data = {} if why is None else _data(job, ending.outcome, why)
    events.record(session, job.id, event, ending.message or "", data=data)
    return JobState.QUEUED


def conclude(session: Session, job: Job, values: dict[str, Any], ending: Ending) -> None:
    """End the attempt's row and move the locked job out of `running` with these columns."""
    statement = (
        update(JobAttempt)
        .where(JobAttempt.job_id == job.id, JobAttempt.number == job.attempt)
        .values(finished_at=db_now(), outcome=ending.outcome, message=ending.message, traceback=ending.traceback)
        .returning(JobAttempt.started_at, db_now())
        .execution_options(synchronize_session=False)
    )
    started_at, ended_at = session.execute(statement).one()
    ran_s = 0.0
    if ending.outcome != NOT_PLACED:
        ran_s = (ended_at - started_at).total_seconds()
        gpus, cpus = job.num_workers * job.gpus_per_worker, job.num_workers * job.cpus_per_worker
        held = Allocation(job.team, job.submitted_by, gpus, cpus)
        ledger.book(session, held, started_at=started_at, ended_at=ended_at)
    conditions = (Job.id == job.id, Job.state == JobState.RUNNING, Job.lease_token == job.lease_token)
    moved = update(Job).where(*conditions).values({"ran_s": job.ran_s + ran_s, **values})
    if not changed_one(session, moved):
        raise RuntimeError(f"the row of job {job.id} changed under its lock")


def queued(delay_s: float = 0.0) -> dict[str, Any]:
    """Return the columns of a job that is queued and due after a delay."""
    return {**idle(JobState.QUEUED), "scheduled_at": db_now(delay_s), "deadline_at": db_now(Job.max_queue_s + delay_s)}


def idle(state: JobState) -> dict[str, Any]:
    """Return the columns of a job that goes into a state in which it does not run, from whatever it was."""
    gone = ("lease_token", "lease_expires_at", "runner", "placement", "wish", "wish_at", "deadline_at", "reported_at")
    values: dict[str, Any] = {**dict.fromkeys(gone), "state": state, "state_since": db_now()}
    if state is JobState.QUEUED:
        values |= {"scheduled_at": db_now(), "deadline_at": db_now(Job.max_queue_s)}
    if state in TERMINAL_STATES:
        values["finished_at"] = db_now()
    return values


def changed_one(session: Session, statement: Any) -> bool:
    """Execute a conditional UPDATE of one job and return whether its conditions held."""
    result = session.execute(statement.returning(Job.id).execution_options(synchronize_session=False))
    return result.one_or_none() is not None


def past_outcomes(session: Session, job: Job) -> list[str | None]:
    """Return how the ended attempts that count against the retry budgets ended, oldest first."""
    query = select(JobAttempt.outcome).where(JobAttempt.job_id == job.id, JobAttempt.finished_at.is_not(None))
    return list(session.scalars(query.where(JobAttempt.number > job.budget_after).order_by(JobAttempt.number)))


def decide(session: Session, job: Job, kind: FailureKind) -> RetryDecision:
    """Decide what follows if the running attempt ends with this kind of failure."""
    policy = RetryPolicy.model_validate(job.spec.get("retry", {}))
    return retry.decide(policy, kind, [*past_outcomes(session, job), kind])


def _time_out(session: Session, job: Job) -> JobState:
    ran_s = job.ran_s + _seconds(session, job)
    text = f"its running time of {ran_s:.0f} s is over limits.max_run_s of {job.max_run_s:g} s"
    ending = Ending(FailureKind.TIMED_OUT, text)
    decision = decide(session, job, FailureKind.TIMED_OUT)
    if not decision.is_retry:
        return _fail_for_good(session, job, ending, decision)
    conclude(session, job, {**queued(decision.delay_s), "ran_s": 0.0}, ending)
    events.record(session, job.id, "retried", text, data=_data(job, ending.outcome, decision))
    return JobState.QUEUED


def _fail_for_good(session: Session, job: Job, ending: Ending, decision: RetryDecision) -> JobState:
    values = {**idle(JobState.FAILED), "failure_kind": ending.outcome, "failure_message": ending.message}
    conclude(session, job, values, ending)
    events.record(session, job.id, "failed", ending.message or "", data=_data(job, ending.outcome, decision))
    return JobState.FAILED


def _data(job: Job, kind: str, decision: RetryDecision) -> dict[str, Any]:
    return {"kind": kind, "attempt": job.attempt, "delay_s": decision.delay_s, "decision": decision.reason}


def _seconds(session: Session, job: Job) -> float:
    query = select(JobAttempt.started_at, db_now()).where(JobAttempt.job_id == job.id, JobAttempt.number == job.attempt)
    started_at, now = session.execute(query).one()
    return float((now - started_at).total_seconds())
