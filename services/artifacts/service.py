"""Rows about checkpoints, whose files ranks write."""

from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from xsam.services.artifacts.models import Checkpoint
from xsam.services.db.upsert import upsert
from xsam.services.jobs import queue
from xsam.services.jobs.queue import Lease
from xsam.services.metrics.records import CheckpointRecord


def write_checkpoints(
    session: Session, lease: Lease, records: Sequence[CheckpointRecord], *, kept: Sequence[str] | None
) -> None:
    """Store that checkpoints lie complete in the artifact store, and drop the rows of those that were pruned.

    Args:
        session: open in a unit of work.
        lease: the writer's.
        records: new checkpoints.
        kept: names of all checkpoints that are there now; None if nobody knows, then no row is dropped.

    Raises:
        LeaseLostError: the caller no longer owns the job.
    """
    if not records:
        return
    queue.touch(session, lease)
    rows = [{"job_id": lease.job_id, **asdict(record)} for record in records]
    upsert(session, Checkpoint, rows, keys=("job_id", "name"))
    if kept is not None:
        session.execute(delete(Checkpoint).where(Checkpoint.job_id == lease.job_id, Checkpoint.name.not_in(kept)))


def list_checkpoints(session: Session, job_id: str) -> Sequence[Checkpoint]:
    """Return the job's checkpoints, oldest first."""
    return session.scalars(select(Checkpoint).where(Checkpoint.job_id == job_id).order_by(Checkpoint.step)).all()


def forget_checkpoints(session: Session, job_ids: Sequence[str]) -> None:
    """Delete the rows of jobs' checkpoints, whose files are being deleted."""
    session.execute(delete(Checkpoint).where(Checkpoint.job_id.in_(job_ids)))
