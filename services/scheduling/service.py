"""Between the rows and the pure policy: reads what a decision depends on, and writes the wishes it makes."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.clock import db_now
from services.cluster.service import NodeSeen
from services.jobs.models import KIND_STUDY, Job, JobAttempt
from services.jobs.states import JobState
from services.scheduling.types import Node, PendingJob, RunningJob, Snapshot
from services.studies import trials
from services.teams import limits
from services.usage import ledger

MAX_PENDING = 10_000
"""A decision looks at this many queued jobs at most, by priority and age; later ones come up as the queue moves."""


def take_snapshot(session: Session, nodes: Sequence[NodeSeen], *, holders: tuple[str, ...] = ()) -> Snapshot:
    """Return everything the next decision depends on.

    Args:
        session: open for reading.
        nodes: the machines as the caller sees them now.
        holders: `Plan.holders` of the decision before.
    """
    return Snapshot(
        now=session.execute(select(db_now())).scalar_one(),
        pending=_pending(session),
        running=_running(session),
        nodes=[Node(node.id, int(node.num_gpus), node.num_cpus) for node in nodes],
        quotas=limits.quotas(session),
        shares=ledger.shares(session, limits.weights(session)),
        holders=holders,
    )


def _pending(session: Session) -> list[PendingJob]:
    columns = (
        Job.id,
        Job.team,
        Job.submitted_by,
        Job.priority,
        Job.created_at,
        Job.num_workers,
        Job.gpus_per_worker,
        Job.cpus_per_worker,
        Job.scheduled_at,
        Job.state,
        Job.attempt,
    )
    query = (
        select(*columns)
        .where(Job.state == JobState.QUEUED, Job.kind != KIND_STUDY, trials.has_takers())
        .order_by(Job.priority.desc(), Job.created_at)
    )
    return [
        PendingJob(
            job_id=row.id,
            team=row.team,
            user=row.submitted_by,
            priority=row.priority,
            submitted_at=row.created_at,
            num_workers=row.num_workers,
            gpus_per_worker=row.gpus_per_worker,
            cpus_per_worker=row.cpus_per_worker,
            eligible_at=row.scheduled_at,
            attempt=row.attempt + 1,
        )
        for row in session.execute(query.limit(MAX_PENDING))
    ]


def _running(session: Session) -> list[RunningJob]:
    query = (
        select(Job, JobAttempt.started_at)
        .join(JobAttempt, (JobAttempt.job_id == Job.id) & (JobAttempt.number == Job.attempt))
        .where(Job.state == JobState.RUNNING, Job.kind != KIND_STUDY)
    )
    return [
        RunningJob(
            job_id=job.id,
            team=job.team,
            user=job.submitted_by,
            priority=job.priority,
            started_at=started_at,
            node_ids=tuple(job.placement or ()),
            gpus_per_worker=job.gpus_per_worker,
            cpus_per_worker=job.cpus_per_worker,
            is_stopping=job.wish is not None,
        )
        for job, started_at in session.execute(query)
    ]
