"""Storing and reading what runs measured; every write is fenced by the job's lease."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict

from sqlalchemy import Select, and_, delete, func, select
from sqlalchemy.orm import Session

from xsam.services.db.upsert import upsert
from xsam.services.jobs import queue
from xsam.services.jobs.queue import Lease
from xsam.services.metrics.models import AlphaEstimate, EpochMetric, LossPlane, NamedMetric
from xsam.services.metrics.records import FIELDS, AlphaRecord, EpochRecord, PlaneRecord
from xsam.services.metrics.schemas import AlphaColumn, AlphaMap, EpochRead
from xsam.services.metrics.thinning import resampled, thin

_DRAWN: Sequence[Callable[[EpochRead], float | None]] = (
    lambda epoch: epoch.eval_loss,
    lambda epoch: epoch.train_loss,
)

_PER_STATEMENT = 500


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


def write_planes(session: Session, lease: Lease, records: Sequence[PlaneRecord]) -> None:
    """Store losses around checkpoints; a later record of a checkpoint replaces an earlier one.

    Raises:
        LeaseLostError: the caller no longer owns the job.
    """
    if not records:
        return
    queue.touch(session, lease)
    newest = {record.checkpoint: record for record in records}
    rows = [
        {"job_id": lease.job_id, **asdict(record), "losses": [list(row) for row in record.losses]}
        for record in newest.values()
    ]
    upsert(session, LossPlane, rows, keys=("job_id", "checkpoint"))


def list_planes(session: Session, job_id: str) -> list[PlaneRecord]:
    """Return the losses around checkpoints that a job has stored, by step; unfinished ones too."""
    rows = session.scalars(select(LossPlane).where(LossPlane.job_id == job_id).order_by(LossPlane.step))
    return [
        PlaneRecord(row.checkpoint, row.epoch, row.step, tuple(tuple(line) for line in row.losses), row.found)
        for row in rows
    ]


def rewind(session: Session, lease: Lease, *, epoch: int, step: int) -> None:
    """Drop rows beyond the point from which a run goes on, so that nothing unrepeated is left over.

    Raises:
        LeaseLostError: the caller no longer owns the job.
    """
    queue.touch(session, lease, epochs_done=epoch)
    session.execute(delete(EpochMetric).where(EpochMetric.job_id == lease.job_id, EpochMetric.epoch > epoch))
    session.execute(delete(NamedMetric).where(NamedMetric.job_id == lease.job_id, NamedMetric.epoch > epoch))
    session.execute(delete(AlphaEstimate).where(AlphaEstimate.job_id == lease.job_id, AlphaEstimate.step > step))


def thin_stored(session: Session, job_id: str, *, points: int) -> int:
    """Delete epochs and searches of an ended job beyond what a chart shows; returns how many are gone.

    An epoch that stays takes over the seconds of those that are gone before it, so the time trained stays true.
    """
    epochs = session.scalars(select(EpochMetric).where(EpochMetric.job_id == job_id).order_by(EpochMetric.epoch)).all()
    kept = {row.epoch for row in thin(epochs, points, (lambda row: row.eval_loss, lambda row: row.train_loss))}
    kept |= {row.epoch for row in thin(epochs, points // 2, (lambda row: row.eval_accuracy,))}
    passed_s = 0.0
    for row in epochs:
        passed_s += row.epoch_s
        if row.epoch in kept:
            row.epoch_s, passed_s = passed_s, 0.0
    gone = [row.epoch for row in epochs if row.epoch not in kept]
    searches = session.execute(
        select(AlphaEstimate.step, AlphaEstimate.alpha)
        .where(AlphaEstimate.job_id == job_id)
        .order_by(AlphaEstimate.step)
    ).all()
    shown = {row.step for row in thin(searches, points, (lambda row: row.alpha,))}
    steps = [row.step for row in searches if row.step not in shown]
    session.flush()
    for part in _parts(gone):
        session.execute(delete(EpochMetric).where(EpochMetric.job_id == job_id, EpochMetric.epoch.in_(part)))
        session.execute(delete(NamedMetric).where(NamedMetric.job_id == job_id, NamedMetric.epoch.in_(part)))
    for part in _parts(steps):
        session.execute(delete(AlphaEstimate).where(AlphaEstimate.job_id == job_id, AlphaEstimate.step.in_(part)))
    return len(gone) + len(steps)


def list_epochs(session: Session, job_id: str, *, after: int = 0, points: int | None = None) -> Sequence[EpochRead]:
    """Return the job's epochs above `after`, in order, with what its own task has measured.

    Args:
        session: open for reading.
        job_id: the job.
        after: only epochs above this one.
        points: at most so many, thinned so that curves keep their lows and highs; None for all.
    """
    query = select(EpochMetric).where(EpochMetric.job_id == job_id, EpochMetric.epoch > after)
    trained_s = _trained_s(session, job_id, until=after)
    epochs = []
    for row in session.scalars(query.order_by(EpochMetric.epoch)):
        trained_s += row.epoch_s
        epochs.append(EpochRead.model_validate(row).model_copy(update={"trained_s": trained_s}))
    named: defaultdict[int, dict[str, float]] = defaultdict(dict)
    values = select(NamedMetric).where(NamedMetric.job_id == job_id, NamedMetric.epoch > after)
    for one in session.scalars(values.order_by(NamedMetric.name)):
        named[one.epoch][one.name] = one.value
    kept = epochs if points is None else thin(epochs, points, _DRAWN)
    return [epoch.model_copy(update={"metrics": named[epoch.epoch]}) for epoch in kept]


def _parts(values: Sequence[int]) -> Iterator[Sequence[int]]:
    """Yield values in as many as a statement takes."""
    return (values[start : start + _PER_STATEMENT] for start in range(0, len(values), _PER_STATEMENT))


def _trained_s(session: Session, job_id: str, *, until: int) -> float:
    if not until:
        return 0.0
    own = select(func.sum(EpochMetric.epoch_s)).where(EpochMetric.job_id == job_id, EpochMetric.epoch <= until)
    return session.scalar(own) or 0.0


def values_by_epoch(name: str) -> Select[str, float, int]:
    """Return a query of (job, value, gradient evaluations) for every epoch that has measured a metric."""
    if name in FIELDS:
        column = getattr(EpochMetric, FIELDS[name])
        return select(EpochMetric.job_id, column, EpochMetric.grad_evals).where(column.is_not(None))
    same = and_(NamedMetric.job_id == EpochMetric.job_id, NamedMetric.epoch == EpochMetric.epoch)
    query = select(EpochMetric.job_id, NamedMetric.value, EpochMetric.grad_evals).join(NamedMetric, same)
    return query.where(NamedMetric.name == name)


def list_alphas(
    session: Session, job_id: str, *, after_step: int = 0, points: int | None = None
) -> Sequence[AlphaRecord]:
    """Return the job's alpha estimates after a step, in order; thinned to so many where `points` says so."""
    query = select(AlphaEstimate).where(AlphaEstimate.job_id == job_id, AlphaEstimate.step > after_step)
    found = [
        AlphaRecord(row.epoch, row.step, row.alpha, row.angle_rad, tuple(row.alphas), tuple(row.losses))
        for row in session.scalars(query.order_by(AlphaEstimate.step))
    ]
    return found if points is None else thin(found, points, (lambda record: record.alpha,))


def alpha_map(session: Session, job_id: str, *, columns: int = 200, rows: int = 64) -> AlphaMap:
    """Return all of the job's probe curves on one grid, neighbours averaged where there are more than columns."""
    found = [record for record in list_alphas(session, job_id) if record.alphas]
    if not found:
        return AlphaMap(alphas=[], columns=[], num_searches=0, low_edge_share=None, high_edge_share=None)
    low, high = min(record.alphas[0] for record in found), max(record.alphas[-1] for record in found)
    num = min(max(len(record.alphas) for record in found), rows)
    grid = [low + (high - low) * number / max(num - 1, 1) for number in range(num)]
    num_columns = min(len(found), columns)
    parts = [
        found[len(found) * number // num_columns : len(found) * (number + 1) // num_columns]
        for number in range(num_columns)
    ]
    return AlphaMap(
        alphas=grid,
        columns=[_alpha_column(part, grid) for part in parts],
        num_searches=len(found),
        low_edge_share=sum(record.alpha <= record.alphas[0] for record in found) / len(found),
        high_edge_share=sum(record.alpha >= record.alphas[-1] for record in found) / len(found),
    )


def _alpha_column(part: Sequence[AlphaRecord], grid: Sequence[float]) -> AlphaColumn:
    curves = []
    for record in part:
        lowest = min(record.losses)
        curves.append(resampled(record.alphas, [loss - lowest for loss in record.losses], grid))
    known = [[value for value in values if value is not None] for values in zip(*curves, strict=True)]
    return AlphaColumn(
        step=part[0].step,
        epoch=part[0].epoch,
        num=len(part),
        alpha=statistics.fmean(record.alpha for record in part),
        angle_rad=statistics.fmean(record.angle_rad for record in part),
        losses=[statistics.fmean(values) if values else None for values in known],
    )
