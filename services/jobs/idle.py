"""Running jobs whose GPUs do nothing: warned, and then, where their team wants it, sent back to the queue or ended.

Where all of a job's GPUs are measured, it is busy while anything computes on one of them. Where they are not, while it
reports progress. Jobs without GPUs are never idle. One that is sent back again and again is paused at last.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from xsam.services.db.clock import db_now
from xsam.services.jobs import events, wishes
from xsam.services.jobs.models import KIND_STUDY, KIND_TRAINING, KIND_TRIAL, Job
from xsam.services.jobs.queue import Lease
from xsam.services.jobs.states import JobState
from xsam.services.notifications import outbox
from xsam.services.notifications.outbox import Ended
from xsam.services.settings import IdleSettings
from xsam.services.teams import limits
from xsam.services.teams.roles import SYSTEM

BUSY_FROM = 0.05
"""Utilization from which a GPU counts as used: a process that only holds memory shows a per cent or two at times."""
MEASURED_WITHIN_S = 120.0
"""Measurements that are older say nothing of now."""


def note_use(
    session: Session, lease: Lease, *, utilization: float, busiest: float, used_bytes: int, total_bytes: int
) -> None:
    """Store the newest measurement of a job's GPUs; it is no sign of progress. Nothing where the lease is lost.

    Args:
        session: open in a unit of work.
        lease: of the attempt.
        utilization: of all its GPUs, on average, 0 to 1.
        busiest: of the one that does most.
        used_bytes: of their memory, in sum.
        total_bytes: likewise.
    """
    columns: dict[str, Any] = {
        "gpu_utilization": utilization,
        "gpu_used_bytes": used_bytes,
        "gpu_total_bytes": total_bytes,
        "gpu_seen_at": db_now(),
    }
    if busiest >= BUSY_FROM:
        columns["gpu_busy_at"] = db_now()
    held = (Job.id == lease.job_id, Job.state == JobState.RUNNING, Job.lease_token == lease.token)
    session.execute(update(Job).where(*held).values(columns).execution_options(synchronize_session=False))


def idle_since(job: Job, now: datetime) -> datetime:
    """Return since when a running job's GPUs have done nothing, as far as is known; `now` for one that is busy."""
    last = job.reported_at if _measured_at(job, now) is None else job.gpu_busy_at
    return max(last or job.state_since, job.state_since)


def _measured_at(job: Job, now: datetime) -> datetime | None:
    """Return when a running job's GPUs were measured, if that says something of now."""
    seen_at = job.gpu_seen_at
    is_of_now = seen_at is not None and seen_at >= job.state_since and now - seen_at < _s(MEASURED_WITHIN_S)
    return seen_at if is_of_now else None


def in_a_row(job: Job, policy: IdleSettings, now: datetime) -> int:
    """Return how many times in a row a running job was sent back so far.

    An attempt whose GPUs were used for as long as they may be idle begins the count anew: starting and stopping again
    does not.
    """
    return 0 if idle_since(job, now) - job.state_since >= _s(policy.after_s) else job.idle_requeues


def policy_of(team: Mapping[str, Any] | None, usual: IdleSettings) -> IdleSettings:
    """Return what holds for a team: what it does not say is as everywhere."""
    return usual.model_copy(update={name: value for name, value in (team or {}).items() if value is not None})


def look(session: Session, usual: IdleSettings) -> list[str]:
    """Return the running jobs that `act` has something to do about.

    Args:
        session: open for reading.
        usual: what holds for teams that say nothing.
    """
    of_teams = limits.idle(session)
    if usual.then == "nothing" and not of_teams:
        return []
    now = session.execute(select(db_now())).scalar_one()
    running = select(Job).where(
        Job.state == JobState.RUNNING, Job.gpus_per_worker > 0, Job.kind != KIND_STUDY, Job.wish.is_(None)
    )
    return [job.id for job in session.scalars(running) if _step(job, policy_of(of_teams.get(job.team), usual), now)]


def act(session: Session, job_id: str, usual: IdleSettings) -> None:
    """Warn of an idle job, end its time after the warning, or take the warning back; in the caller's transaction.

    Args:
        session: open in a unit of work.
        job_id: of `look`; one that has ended or become busy since is left alone.
        usual: what holds for teams that say nothing.
    """
    query = select(Job).where(Job.id == job_id, Job.state == JobState.RUNNING).with_for_update()
    job = session.scalar(query.execution_options(populate_existing=True))
    if job is None:
        return
    policy = policy_of(limits.idle(session).get(job.team), usual)
    now = session.execute(select(db_now())).scalar_one()
    since = idle_since(job, now).astimezone(UTC)
    said = f"its GPUs have been idle since {since:%Y-%m-%d %H:%M:%S} UTC"
    match _step(job, policy, now):
        case "warn":
            job.idle_warned_at = now
            follows = _THEN[_last_step(job, policy, now)].format(policy.grace_s / 60)
            events.record(session, job_id, "idle", f"{said}; {follows}")
            if job.kind == KIND_TRAINING:
                told = Ended(job.id, "job", job.team, job.name, job.submitted_by, job.state)
                outbox.tell(session, [told], event="job.idle")
        case "forgive":
            job.idle_warned_at = None
            events.record(session, job_id, "busy_again", "its GPUs are used again")
        case "requeue":
            job.idle_requeues = in_a_row(job, policy, now) + 1
            wishes.request_preemption(session, job_id, reason=said)
        case "pause":
            job.idle_paused_at = now
            events.record(session, job_id, "idle_paused", f"{said}: {_again(job)}, so it is paused")
            wishes.request_pause(session, job_id, actor=SYSTEM)
        case "end":
            reason = _again(job) if policy.then == "requeue" else "its team has such jobs ended"
            events.record(session, job_id, "idle_ended", f"{said}: {reason}")
            wishes.request_cancel(session, job_id, actor=SYSTEM)


_THEN = {
    "warn": "nothing is done about it",
    "requeue": "it goes back to the queue in {:g} min unless they are used",
    "pause": "it is paused in {:g} min unless they are used",
    "end": "it is ended in {:g} min unless they are used",
}


def _again(job: Job) -> str:
    return f"it was sent back {job.idle_requeues} times in a row" if job.idle_requeues else "it is not sent back"


def _step(job: Job, policy: IdleSettings, now: datetime) -> str | None:
    """Return what is to be done about a running job: warn, forgive, requeue, pause, end, or None."""
    known_until = _measured_at(job, now) or now
    is_idle = policy.then != "nothing" and known_until - idle_since(job, now) >= _s(policy.after_s)
    warned_at = job.idle_warned_at
    if warned_at is not None and warned_at < job.state_since:
        warned_at = None  # of an attempt before
    if not is_idle:
        return "forgive" if warned_at is not None else None
    if warned_at is None:
        return "warn"
    is_due = policy.then in ("requeue", "end") and now - warned_at >= _s(policy.grace_s)
    return _last_step(job, policy, now) if is_due and job.wish is None else None


def _last_step(job: Job, policy: IdleSettings, now: datetime) -> str:
    """Return what follows the warning: what the policy says, or, instead of the last requeue, a pause.

    A study's trial is ended then: its study could not end while one of its trials is paused.
    """
    if policy.then != "requeue" or in_a_row(job, policy, now) < policy.max_requeues:
        return policy.then
    return "end" if job.kind == KIND_TRIAL else "pause"


def _s(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)
