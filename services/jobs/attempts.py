"""How a job changes its state, and how an attempt ends: where its job goes, what its row says, what it used.

`move` and `move_all` are the one way to a new state (`queue.claim`, which starts an attempt, is the other side of it);
they refuse what the table in `states` does not list. One place for all endings, so that none forgets the usage, the
wishes or the running time. Callers hold the job's row lock.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from xsam.services.db.clock import db_now
from xsam.services.jobs import events, retry
from xsam.services.jobs.models import KIND_STUDY, KIND_TRAINING, Job, JobAttempt
from xsam.services.jobs.retry import RetryDecision
from xsam.services.jobs.states import TERMINAL_STATES, FailureKind, JobState, Wish, check_transition
from xsam.services.notifications import outbox
from xsam.services.notifications.outbox import Ended
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
    conclude(session, job, JobState.CANCELLED, Ending(FailureKind.CANCELLED, message))
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
        conclude(session, job, JobState.PAUSED, ending)
        events.record(session, job.id, "paused", ending.message or "")
        return JobState.PAUSED
    conclude(session, job, JobState.QUEUED, ending, **_due(delay_s))
    data = {} if why is None else _data(job, ending.outcome, why)
    events.record(session, job.id, event, ending.message or "", data=data)
    return JobState.QUEUED


def conclude(session: Session, job: Job, to: JobState, ending: Ending, **columns: Any) -> None:
    """End the attempt's row and move the locked job out of `running`, with these columns."""
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
    ledger.count_outcome(session, job.team, job.submitted_by, ending.outcome)
    move(session, job, to, **{"ran_s": job.ran_s + ran_s, **columns})


def move(session: Session, job: Job, to: JobState, **columns: Any) -> None:
    """Take a job, whose row the caller has locked and read, to a state in which it does not run, with these columns.

    Raises:
        InvalidTransitionError: the table lists no way from the job's state to this one.
    """
    check_transition(JobState(job.state), to, is_study=job.kind == KIND_STUDY)
    unchanged = (Job.id == job.id, Job.state == job.state, Job.lease_token.is_not_distinct_from(job.lease_token))
    if not changed_one(session, update(Job).where(*unchanged).values({**_idle(to), **columns})):
        raise RuntimeError(f"the row of job {job.id} changed under its lock")
    if to in TERMINAL_STATES:
        told = {name: columns.get(name) for name in ("failure_kind", "failure_message", "best_value")}
        _tell(session, [job], to, **told)


def move_all(
    session: Session, condition: ColumnElement[bool], old: Collection[JobState], to: JobState, **columns: Any
) -> list[str]:
    """Take those of the jobs that are in one of the old states to a state in which they do not run; return their ids.

    Raises:
        InvalidTransitionError: the table lists no way from one of the old states to this one.
    """
    for state in old:
        check_transition(state, to)
    told = (Job.id, Job.kind, Job.team, Job.name, Job.submitted_by)
    moved = update(Job).where(condition, Job.state.in_(old)).values({**_idle(to), **columns}).returning(*told)
    rows = session.execute(moved.execution_options(synchronize_session=False)).all()
    if to in TERMINAL_STATES:
        failure = {name: columns.get(name) for name in ("failure_kind", "failure_message")}
        _tell(session, rows, to, **failure)
    return [row.id for row in rows]


def _tell(session: Session, jobs: Sequence[Any], state: JobState, **what: Any) -> None:
    """Tell the teams' webhooks of jobs and studies that have ended; trials are the study's own affair."""
    kinds = {KIND_TRAINING: "job", KIND_STUDY: "study"}
    ended = [
        Ended(job.id, kinds[job.kind], job.team, job.name, job.submitted_by, state, **what)
        for job in jobs
        if job.kind in kinds
    ]
    outbox.tell(session, ended)


def _due(delay_s: float) -> dict[str, Any]:
    """Return the columns of a queued job that is due after a delay."""
    return {"scheduled_at": db_now(delay_s), "deadline_at": db_now(Job.max_queue_s + delay_s)}


def _idle(state: JobState) -> dict[str, Any]:
    """Return the columns of a job that goes into a state in which it does not run, from whatever it was."""
    held = ("lease_token", "lease_expires_at", "runner", "placement", "wish", "wish_at", "deadline_at", "reported_at")
    used = ("gpu_utilization", "gpu_used_bytes", "gpu_total_bytes", "gpu_seen_at", "gpu_busy_at", "idle_warned_at")
    gone = (*held, *used)
    values: dict[str, Any] = {**dict.fromkeys(gone), "state": state, "state_since": db_now()}
    if state is not JobState.PAUSED:
        values["idle_paused_at"] = None
    if state is JobState.QUEUED:
        values |= _due(0.0)
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
    conclude(session, job, JobState.QUEUED, ending, **_due(decision.delay_s), ran_s=0.0)
    events.record(session, job.id, "retried", text, data=_data(job, ending.outcome, decision))
    return JobState.QUEUED


def _fail_for_good(session: Session, job: Job, ending: Ending, decision: RetryDecision) -> JobState:
    failure = {"failure_kind": ending.outcome, "failure_message": ending.message}
    conclude(session, job, JobState.FAILED, ending, **failure)
    events.record(session, job.id, "failed", ending.message or "", data=_data(job, ending.outcome, decision))
    return JobState.FAILED


def _data(job: Job, kind: str, decision: RetryDecision) -> dict[str, Any]:
    return {"kind": kind, "attempt": job.attempt, "delay_s": decision.delay_s, "decision": decision.reason}


def _seconds(session: Session, job: Job) -> float:
    query = select(JobAttempt.started_at, db_now()).where(JobAttempt.job_id == job.id, JobAttempt.number == job.attempt)
    started_at, now = session.execute(query).one()
    return float((now - started_at).total_seconds())
