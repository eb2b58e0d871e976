"""Rows about checkpoints, whose files ranks write; those of ended jobs are deleted after a while, files and rows."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from xsam.services.artifacts.models import Checkpoint
from xsam.services.artifacts.store import JobFolder
from xsam.services.db.clock import db_now
from xsam.services.db.upsert import upsert
from xsam.services.jobs import queue
from xsam.services.jobs.models import Job
from xsam.services.jobs.queue import Lease
from xsam.services.jobs.states import TERMINAL_STATES
from xsam.services.metrics.records import CheckpointRecord

_SECONDS_PER_DAY = 86_400.0


def write_checkpoints(
    session: Session, lease: Lease, records: Sequence[CheckpointRecord], *, kept: Sequence[str]
) -> None:
    """Store that checkpoints lie complete in the artifact store, and drop the rows of those that were pruned.

    Args:
        session: open in a unit of work.
        lease: the writer's.
        records: new checkpoints.
        kept: names of all checkpoints that are there now.

    Raises:
        LeaseLostError: the caller no longer owns the job.
    """
    if not records:
        return
    queue.touch(session, lease)
    rows = [{"job_id": lease.job_id, **asdict(record)} for record in records]
    upsert(session, Checkpoint, rows, keys=("job_id", "name"))
    session.execute(delete(Checkpoint).where(Checkpoint.job_id == lease.job_id, Checkpoint.name.not_in(kept)))


def list_checkpoints(session: Session, job_id: str) -> Sequence[Checkpoint]:
    """Return the job's checkpoints, oldest first."""
    return session.scalars(select(Checkpoint).where(Checkpoint.job_id == job_id).order_by(Checkpoint.step)).all()


def find_outdated(session: Session, *, keep_days: float, limit: int = 20) -> list[str]:
    """Return jobs that ended more than `keep_days` ago and still have checkpoints."""
    query = (
        select(Job.id)
        .where(Job.state.in_(TERMINAL_STATES), Job.finished_at < db_now(-keep_days * _SECONDS_PER_DAY))
        .where(select(Checkpoint.name).where(Checkpoint.job_id == Job.id).exists())
    )
    return list(session.scalars(query.limit(limit)))


def forget(session: Session, root: Path, job_id: str) -> None:
    """Delete a job's checkpoints: the files first, so that a row never outlives the chance to find its file."""
    shutil.rmtree(JobFolder(root, job_id).checkpoints, ignore_errors=True)
    session.execute(delete(Checkpoint).where(Checkpoint.job_id == job_id))
