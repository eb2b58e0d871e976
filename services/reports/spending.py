"""What the cluster was used for: GPU-hours by optimizer, model, study, job, user or team, summed over attempts."""

from collections import defaultdict
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from xsam.services.db.clock import db_now
from xsam.services.jobs.models import KIND_STUDY, Job, JobAttempt
from xsam.services.reports.occupancy import span_of
from xsam.services.schemas import Read
from xsam.services.studies.models import Trial

_S_PER_HOUR = 3600.0
_ROWS_AT_ONCE = 5_000


class SpendingBy(StrEnum):
    """What usage is summed by."""

    OPTIMIZER = "optimizer"
    MODEL = "model"
    STUDY = "study"
    JOB = "job"
    USER = "user"
    TEAM = "team"


class SpendingItem(Read):
    """What one of them has used."""

    key: str | None
    """An optimizer, a study's or job's id, a user, ...; null of what has none (jobs outside of studies)."""
    name: str | None
    """Of a job or study."""
    gpu_hours: float
    cpu_hours: float
    num_attempts: int


class SpendingRead(Read):
    """What was used over a time; attempts that run count up to its end."""

    since: datetime
    until: datetime
    by: SpendingBy
    items: list[SpendingItem]
    """Most first."""
    rest: SpendingItem | None
    """All further ones together."""


def spending(
    session: Session,
    *,
    by: SpendingBy,
    since: datetime | None = None,
    until: datetime | None = None,
    team: str | None = None,
    limit: int = 50,
) -> SpendingRead:
    """Return what was used, summed.

    Args:
        session: open for reading.
        by: what to sum by.
        since: by default a day before the end.
        until: by default now.
        team: only this team's; None for all.
        limit: so many are shown apart.

    Raises:
        InvalidRequestError: the times are in the wrong order, or too far apart.
    """
    first, last = span_of(session, since, until)
    now = session.execute(select(db_now())).scalar_one()
    sums: defaultdict[str | None, list[float]] = defaultdict(lambda: [0.0, 0.0, 0])
    for row in session.execute(_attempts(by, first, last, team).execution_options(yield_per=_ROWS_AT_ONCE)):
        held_s = (min(row.finished_at or now, last) - max(row.started_at, first)).total_seconds()
        held_h = row.num_workers * max(held_s, 0.0) / _S_PER_HOUR
        one = sums[row.key]
        one[0] += row.gpus_per_worker * held_h
        one[1] += row.cpus_per_worker * held_h
        one[2] += 1
    ranked = sorted(sums.items(), key=lambda item: (-item[1][0], -item[1][1], item[0] or ""))
    names = _names(session, by, [key for key, _ in ranked[:limit] if key is not None])
    rest = [sum(amounts[place] for _, amounts in ranked[limit:]) for place in range(3)]
    return SpendingRead(
        since=first,
        until=last,
        by=by,
        items=[_item(key, names.get(key or ""), amounts) for key, amounts in ranked[:limit]],
        rest=_item(None, None, rest) if len(ranked) > limit else None,
    )


def _attempts(by: SpendingBy, first: datetime, last: datetime, team: str | None) -> Any:
    key: Any = {
        SpendingBy.OPTIMIZER: Job.optimizer,
        SpendingBy.MODEL: Job.model,
        SpendingBy.STUDY: Trial.study_id,
        SpendingBy.JOB: Job.id,
        SpendingBy.USER: Job.submitted_by,
        SpendingBy.TEAM: Job.team,
    }[by]
    columns = (JobAttempt.started_at, JobAttempt.finished_at, Job.num_workers, Job.gpus_per_worker, Job.cpus_per_worker)
    overlaps = and_(
        JobAttempt.started_at < last, or_(JobAttempt.finished_at.is_(None), JobAttempt.finished_at >= first)
    )
    query = select(key.label("key"), *columns).join(Job, Job.id == JobAttempt.job_id)
    if by is SpendingBy.STUDY:
        query = query.outerjoin(Trial, Trial.job_id == Job.id)
    query = query.where(overlaps, Job.kind != KIND_STUDY)
    return query if team is None else query.where(Job.team == team)


def _names(session: Session, by: SpendingBy, keys: list[str]) -> dict[str, str | None]:
    if by not in (SpendingBy.JOB, SpendingBy.STUDY) or not keys:
        return {}
    return {row.id: row.name for row in session.execute(select(Job.id, Job.name).where(Job.id.in_(keys)))}


def _item(key: str | None, name: str | None, amounts: list[float]) -> SpendingItem:
    gpu_hours, cpu_hours, num = amounts
    return SpendingItem(key=key, name=name, gpu_hours=gpu_hours, cpu_hours=cpu_hours, num_attempts=int(num))
