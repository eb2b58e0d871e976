"""Jobs whose runner fell silent: their leases are expired and the job goes on elsewhere, or ends."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.clock import db_now
from services.jobs import queue, retry
from services.jobs.models import Job, JobAttempt
from services.jobs.queue import Lease
from services.jobs.retry import RetryDecision
from services.jobs.states import FailureKind, JobState
from services.specs.job import RetryPolicy


def expire_leases(session: Session, *, limit: int = 100) -> list[Lease]:
    """Take jobs back from runners that stopped renewing, and return the leases that ended.

    A job somebody wanted cancelled ends as cancelled; any other follows its retry policy for infrastructure failures.
    """
    query = (
        select(Job)
        .where(Job.state == JobState.RUNNING, Job.lease_expires_at <= db_now())
        .order_by(Job.lease_expires_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return [lease for job in session.scalars(query) if (lease := _expire(session, job)) is not None]


def has_expired_leases(session: Session) -> bool:
    """Return whether `expire_leases` would find work; a cheap look that takes no lock."""
    query = select(Job.id).where(Job.state == JobState.RUNNING, Job.lease_expires_at <= db_now())
    return session.execute(query.limit(1)).first() is not None


def running_leases(session: Session) -> list[tuple[Lease, str]]:
    """Return the lease of every running job with the name of the dispatcher that placed it."""
    jobs = session.scalars(select(Job).where(Job.state == JobState.RUNNING))
    return [(Lease(job.id, job.lease_token or "", job.attempt), job.runner or "") for job in jobs]


def fail_infrastructure(session: Session, lease: Lease, *, message: str) -> None:
    """End an attempt whose runner is known to be dead, without waiting for its lease; nothing if it ended already."""
    job = session.get(Job, lease.job_id, with_for_update=True)
    if job is None or job.lease_token != lease.token:
        return
    queue.revoke(session, lease, message=message, decision=_decision(session, job))


def overdue_wishes(session: Session, *, grace_s: float) -> set[Lease]:
    """Return the leases of running jobs that were asked to stop more than `grace_s` ago."""
    query = select(Job).where(Job.state == JobState.RUNNING, Job.wish_at <= db_now(-grace_s))
    return {Lease(job.id, job.lease_token or "", job.attempt) for job in session.scalars(query)}


def past_outcomes(session: Session, job_id: str) -> Sequence[str | None]:
    """Return how each earlier attempt ended, oldest first."""
    query = select(JobAttempt.outcome).where(JobAttempt.job_id == job_id, JobAttempt.finished_at.is_not(None))
    return session.scalars(query.order_by(JobAttempt.number)).all()


def _expire(session: Session, job: Job) -> Lease | None:
    assert job.lease_token is not None  # noqa: S101 - guaranteed by the constraint running_has_lease
    lease = Lease(job.id, job.lease_token, job.attempt)
    message = f"runner {job.runner} stopped renewing its lease"
    return lease if queue.expire(session, lease, message=message, decision=_decision(session, job)) else None


def _decision(session: Session, job: Job) -> RetryDecision:
    policy = RetryPolicy.model_validate(job.spec.get("retry", {}))
    past = [*past_outcomes(session, job.id), FailureKind.INFRASTRUCTURE]
    return retry.decide(policy, FailureKind.INFRASTRUCTURE, past)
