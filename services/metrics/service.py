"""Storing and reading what runs measured; every write is fenced by the job's lease."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import Select, and_, delete, select
from sqlalchemy.orm import Session

from xsam.services.db.upsert import upsert
from xsam.services.jobs import queue
from xsam.services.jobs.queue import Lease
from xsam.services.metrics.models import AlphaEstimate, EpochMetric, NamedMetric
from xsam.services.metrics.records import FIELDS, AlphaRecord, EpochRecord
from xsam.services.metrics.schemas import EpochRead


def write_epochs(session: Session, lease: Lease, records: Sequence[EpochRecord]) -> None:
    """Store finished epochs and move the job's progress; an epoch that was run again replaces its row.

    Raises:
        LeaseLostError: the caller no longer owns the job.
    """
    if not records:
        return
    queue.touch(session, lease, epochs_done=max(record.epoch for record in records))
    rows = [{"job_id": lease.job_id, "attempt": lease.attempt, **asdict(record)} for record in records]
    named = [
        {"job_id": lease.job_id, "epoch": row["epoch"], "name": name, "value": value}
        for row in rows
        for name, value in row.pop("metrics").items()
    ]
    upsert(session, EpochMetric, rows, keys=("job_id", "epoch"))
    upsert(session, NamedMetric, named, keys=("job_id", "epoch", "name"))


def write_alphas(session: Session, lease: Lease, records: Sequence[AlphaRecord]) -> None:
    """Store alpha estimates; a search that was run again replaces its row.

    Raises:
        LeaseLostError: the caller no longer owns the job.
    """
    if not records:
        return
    queue.touch(session, lease)
    rows = [
        {"job_id": lease.job_id, **asdict(record), "alphas": list(record.alphas), "losses": list(record.losses)}
        for record in records
    ]
    upsert(session, AlphaEstimate, rows, keys=("job_id", "step"))


def rewind(session: Session, lease: Lease, *, epoch: int, step: int) -> None:
    """Drop rows beyond the point from which a run goes on, so that nothing unrepeated is left over.

    Raises:
        LeaseLostError: the caller no longer owns the job.
    """
    queue.touch(session, lease, epochs_done=epoch)
    session.execute(delete(EpochMetric).where(EpochMetric.job_id == lease.job_id, EpochMetric.epoch > epoch))
    session.execute(delete(NamedMetric).where(NamedMetric.job_id == lease.job_id, NamedMetric.epoch > epoch))
    session.execute(delete(AlphaEstimate).where(AlphaEstimate.job_id == lease.job_id, AlphaEstimate.step > step))


def list_epochs(session: Session, job_id: str, *, after: int = 0) -> Sequence[EpochRead]:
    """Return the job's epochs above `after`, in order, with what its own task has measured."""
    query = select(EpochMetric).where(EpochMetric.job_id == job_id, EpochMetric.epoch > after)
    epochs = [EpochRead.model_validate(row) for row in session.scalars(query.order_by(EpochMetric.epoch))]
    named: defaultdict[int, dict[str, float]] = defaultdict(dict)
    values = select(NamedMetric).where(NamedMetric.job_id == job_id, NamedMetric.epoch > after)
    for one in session.scalars(values.order_by(NamedMetric.name)):
        named[one.epoch][one.name] = one.value
    return [epoch.model_copy(update={"metrics": named[epoch.epoch]}) for epoch in epochs]


def values_by_epoch(name: str) -> Select[str, float, int]:
    """Return a query of (job, value, gradient evaluations) for every epoch that has measured a metric."""
    if name in FIELDS:
        column = getattr(EpochMetric, FIELDS[name])
        return select(EpochMetric.job_id, column, EpochMetric.grad_evals).where(column.is_not(None))
    same = and_(NamedMetric.job_id == EpochMetric.job_id, NamedMetric.epoch == EpochMetric.epoch)
    query = select(EpochMetric.job_id, NamedMetric.value, EpochMetric.grad_evals).join(NamedMetric, same)
    return query.where(NamedMetric.name == name)


def list_alphas(session: Session, job_id: str, *, after_step: int = 0) -> Sequence[AlphaRecord]:
    """Return the job's alpha estimates after a step, in order."""
    query = select(AlphaEstimate).where(AlphaEstimate.job_id == job_id, AlphaEstimate.step > after_step)
    return [
        AlphaRecord(row.epoch, row.step, row.alpha, row.angle_rad, tuple(row.alphas), tuple(row.losses))
        for row in session.scalars(query.order_by(AlphaEstimate.step))
    ]
