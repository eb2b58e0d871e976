"""What people, and the scheduler, want of a job: hold it, go on, stop, start over, change its place in the queue.

Each call locks the job's row, changes it in the caller's transaction and leaves an event with its actor. A job that
runs is only asked (a wish on its row); its runner honours that, or is ended after a while. A stronger wish replaces a
weaker one: cancel, pause, preempt. Asking for what is so already changes nothing.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from xsam.services.db.clock import db_now
from xsam.services.errors import InvalidTransitionError, NotFoundError
from xsam.services.jobs import attempts, events
from xsam.services.jobs.models import Job
from xsam.services.jobs.states import JobState, Wish, is_terminal


def request_cancel(session: Session, job_id: str, *, actor: str) -> JobState:
    """Cancel a job that does not run, or ask its runner to stop; returns the state after the call.

    Raises:
        NotFoundError: no such job.
        InvalidTransitionError: the job has already ended otherwise.
    """
    job = _lock(session, job_id)
    if job.state in (JobState.QUEUED, JobState.PAUSED):
        attempts.move(session, job, JobState.CANCELLED)
        events.record(session, job_id, "cancelled", "cancelled before it ran", actor=actor)
        return JobState.CANCELLED
    if job.state == JobState.RUNNING:
        if job.wish != Wish.CANCEL:
            _ask(session, job, Wish.CANCEL)
            events.record(session, job_id, "cancel_requested", "the runner was asked to stop", actor=actor)
    elif job.state != JobState.CANCELLED:
        raise _not_allowed(job, "queued, paused and running jobs can be cancelled")
    return JobState(job.state)


def request_pause(session: Session, job_id: str, *, actor: str) -> JobState:
    """Hold a queued job, or ask a runner to save its job's state and give it back held; returns the state after it.

    Raises:
        NotFoundError: no such job.
        InvalidTransitionError: the job has ended, or is being cancelled.
    """
    job = _lock(session, job_id)
    if job.state == JobState.QUEUED:
        attempts.move(session, job, JobState.PAUSED)
        events.record(session, job_id, "paused", "held in the queue", actor=actor)
        return JobState.PAUSED
    if job.state == JobState.RUNNING:
        if job.wish == Wish.CANCEL:
            raise InvalidTransitionError(f"job {job_id} is being cancelled; only jobs that go on can be paused")
        if job.wish != Wish.PAUSE:
            _ask(session, job, Wish.PAUSE)
            message = "the runner was asked to save its state and give the resources back"
            events.record(session, job_id, "pause_requested", message, actor=actor)
    elif job.state != JobState.PAUSED:
        raise _not_allowed(job, "queued and running jobs can be paused")
    return JobState(job.state)


def resume(session: Session, job_id: str, *, actor: str) -> JobState:
    """Queue a paused job again, or withdraw the wish to pause one that still runs; returns the state after it.

    Raises:
        NotFoundError: no such job.
        InvalidTransitionError: the job has ended.
    """
    job = _lock(session, job_id)
    if job.state == JobState.PAUSED:
        attempts.move(session, job, JobState.QUEUED, idle_requeues=0)
        events.record(session, job_id, "resumed", "queued again", actor=actor)
        return JobState.QUEUED
    if job.state == JobState.RUNNING and job.wish == Wish.PAUSE:
        _change(session, job, {"wish": None, "wish_at": None, "idle_paused_at": None})
        events.record(session, job_id, "resumed", "the wish to pause was withdrawn", actor=actor)
    elif is_terminal(JobState(job.state)):
        raise _not_allowed(job, "paused jobs can be resumed")
    return JobState(job.state)


def retry(session: Session, job_id: str, *, actor: str) -> JobState:
    """Queue a failed or cancelled job again, with fresh budgets and running time; it goes on from its checkpoints.

    Raises:
        NotFoundError: no such job.
        InvalidTransitionError: the job has not ended, or has succeeded.
    """
    job = _lock(session, job_id)
    if job.state not in (JobState.FAILED, JobState.CANCELLED):
        raise _not_allowed(job, "failed and cancelled jobs can be retried")
    forgiven = {
        "failure_kind": None,
        "failure_message": None,
        "ran_s": 0.0,
        "budget_after": job.attempt,
        "idle_requeues": 0,
    }
    attempts.move(session, job, JobState.QUEUED, finished_at=None, **forgiven)
    events.record(session, job_id, "retry_requested", "queued again with fresh budgets", actor=actor)
    return JobState.QUEUED


def set_priority(session: Session, job_id: str, priority: int, *, actor: str) -> None:
    """Change a job's place in the queue, or, while it runs, what may preempt it.

    Raises:
        NotFoundError: no such job.
        InvalidTransitionError: the job has ended.
    """
    job = _lock(session, job_id)
    if is_terminal(JobState(job.state)):
        raise _not_allowed(job, "the priority of jobs that have not ended can be changed")
    if job.priority == priority:
        return
    message, data = f"priority {job.priority} -> {priority}", {"before": job.priority, "after": priority}
    _change(session, job, {"priority": priority})
    events.record(session, job_id, "priority_changed", message, actor=actor, data=data)


def merge_labels(session: Session, job_id: str, changes: Mapping[str, str | None], *, actor: str) -> None:
    """Set labels of a job, in any state; null removes one, and those that are not named stay.

    Raises:
        NotFoundError: no such job.
    """
    job = _lock(session, job_id)
    merged = {key: value for key, value in {**job.labels, **changes}.items() if value is not None}
    if merged == job.labels:
        return
    _change(session, job, {"labels": merged})
    names = ", ".join(sorted(changes))
    events.record(session, job_id, "labels_changed", f"labels {names} changed", actor=actor, data=dict(changes))


def request_preemption(session: Session, job_id: str, *, reason: str) -> bool:
    """Ask a running job to checkpoint and go back to the queue; False if it has ended or was asked for something."""
    statement = update(Job).where(Job.id == job_id, Job.state == JobState.RUNNING, Job.wish.is_(None))
    if not attempts.changed_one(session, statement.values(wish=Wish.PREEMPT, wish_at=db_now())):
        return False
    events.record(session, job_id, "preempting", f"asked to save its state and go back to the queue: {reason}")
    return True


def _lock(session: Session, job_id: str) -> Job:
    query = select(Job).where(Job.id == job_id).with_for_update().execution_options(populate_existing=True)
    job = session.scalar(query)
    if job is None:
        raise NotFoundError(f"no job {job_id}", field="job_id")
    return job


def _ask(session: Session, job: Job, wish: Wish) -> None:
    _change(session, job, {"wish": wish, "wish_at": db_now()})


def _change(session: Session, job: Job, values: dict[str, Any]) -> None:
    statement = update(Job).where(Job.id == job.id, Job.state == job.state).values(values)
    if not attempts.changed_one(session, statement):
        raise RuntimeError(f"the row of job {job.id} changed under its lock")


def _not_allowed(job: Job, allowed: str) -> InvalidTransitionError:
    return InvalidTransitionError(f"job {job.id} is {job.state}; only {allowed}")
