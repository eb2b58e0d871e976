"""Rows of a list of jobs: what a person looks for in each state, without the specification."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import Field, ValidationError
from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from xsam.services.errors import NotFoundError
from xsam.services.jobs import listing
from xsam.services.jobs.hints import hint
from xsam.services.jobs.listing import CountBy, JobFilter, JobSort
from xsam.services.jobs.models import Job
from xsam.services.jobs.schemas import ProgressRead
from xsam.services.jobs.states import FailureKind, JobState, Wish
from xsam.services.metrics.models import EpochMetric
from xsam.services.reports import why
from xsam.services.schemas import Read
from xsam.services.specs.job import JobSpec
from xsam.services.studies import service as studies
from xsam.services.studies.models import Trial
from xsam.services.teams.roles import Principal

_MESSAGE_CHARS = 300


class RowWhy(Read):
    """Why a queued job waits."""

    code: str
    sentence: str
    position: int | None
    """Place in the queue, from 1."""
    estimated_start_at: datetime | None
    is_lower_bound: bool


class RowFailure(Read):
    """Why a job failed."""

    kind: FailureKind
    message: str
    """Its beginning."""
    hint: str
    """What a person can do about it."""


class JobRow(Read):
    """A job in a list."""

    id: str
    name: str | None
    team: str
    submitted_by: str
    study_id: str | None = None
    """Of a trial: whose."""
    trial: int | None = None
    """Of a trial: its number."""
    state: JobState
    state_since: datetime
    wish: Wish | None
    priority: int
    labels: dict[str, str]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    attempt: int
    progress: ProgressRead
    optimizer: dict[str, Any]
    """As specified."""
    model: str | None
    dataset: str | None
    best_value: float | None
    """Best accuracy so far, or of the metric that the summary names."""
    best_metric: str | None
    """What `best_value` is of, and its better end."""
    grad_evals: int | None
    """Forward-backward passes so far."""
    failure: RowFailure | None = None
    why: RowWhy | None = None


class JobRowPage(Read):
    """A page of a list of jobs."""

    items: list[JobRow]
    next_cursor: str | None
    """Pass it as `cursor`, with the same `sort`, for the next page; null on the last."""
    previous_cursor: str | None = None
    """The same for the page before; null on the first."""


class CountGroup(Read):
    """Jobs that have the same state, team or user, as asked for."""

    state: JobState | None = None
    team: str | None = None
    user: str | None = None
    num: int
    is_exact: bool
    """Otherwise there are more."""


class JobCount(Read):
    """How many jobs match."""

    num: int
    is_exact: bool
    """Otherwise there are more."""
    groups: list[CountGroup] = Field(default_factory=list)
    """Most first; empty where nothing was asked to count by."""


def list_rows(
    session: Session,
    *,
    where: JobFilter,
    sort: JobSort = JobSort.CREATED_DESC,
    cursor: str | None = None,
    limit: int = 50,
    visible_team: str | None = None,
) -> JobRowPage:
    """Return a page of rows.

    Args:
        session: open for reading.
        where: which jobs; its team is checked before.
        sort: their order.
        cursor: `next_cursor` of the page before, or `previous_cursor` of the one after.
        limit: rows on the page.
        visible_team: the only team whose jobs the caller may identify in reasons; None for all.

    Raises:
        InvalidRequestError: the cursor is not one of this order's.
    """
    page = listing.list_jobs(session, where=where, sort=sort, cursor=cursor, limit=limit)
    items = rows_of(session, page.jobs, visible_team=visible_team)
    return JobRowPage(items=items, next_cursor=page.next_cursor, previous_cursor=page.previous_cursor)


def rows_of(session: Session, jobs: Sequence[Job], *, visible_team: str | None = None) -> list[JobRow]:
    """Return the rows of some jobs."""
    unfinished = [job.id for job in jobs if job.summary is None and job.attempt]
    measured = _measured(session, unfinished)
    reasons = why.explain_queued(session, [job for job in jobs if job.state == JobState.QUEUED], visible_team)
    places = _places(session, [job.id for job in jobs if job.kind != "training"])
    return [_row(job, measured, reasons, places) for job in jobs]


def count(session: Session, *, where: JobFilter, by: Sequence[CountBy] = ()) -> JobCount:
    """Return how many jobs match, in all and by what is asked for; up to ten thousand exactly."""
    groups = listing.count_jobs(session, where=where, by=by)
    num = sum(group.num for group in groups)
    is_exact = num <= listing.COUNTED_EXACTLY and all(group.is_exact for group in groups)
    shown = [CountGroup(**group.by, num=group.num, is_exact=group.is_exact) for group in groups] if by else []
    return JobCount(num=min(num, listing.COUNTED_EXACTLY), is_exact=is_exact, groups=shown)


def trials_of(session: Session, study_id: str, principal: Principal) -> Select[str]:
    """Return the query of a study's trials' ids, for `JobFilter.among`.

    Raises:
        NotFoundError: no such study, or it is not the caller's to see.
    """
    study, _ = studies.get(session, study_id)
    if not principal.sees(study.team):
        raise NotFoundError(f"no study {study_id}", field="study")
    return select(Trial.job_id).where(Trial.study_id == study_id)


def _measured(session: Session, job_ids: Sequence[str]) -> Mapping[str, tuple[float | None, int]]:
    if not job_ids:
        return {}
    query = select(EpochMetric.job_id, func.max(EpochMetric.eval_accuracy), func.max(EpochMetric.grad_evals))
    rows = session.execute(query.where(EpochMetric.job_id.in_(job_ids)).group_by(EpochMetric.job_id))
    return {job_id: (best, grad_evals) for job_id, best, grad_evals in rows}


def _places(session: Session, trial_ids: Sequence[str]) -> Mapping[str, dict[str, Any]]:
    if not trial_ids:
        return {}
    query = select(Trial.job_id, Trial.study_id, Trial.number).where(Trial.job_id.in_(trial_ids))
    return {row.job_id: {"study_id": row.study_id, "trial": row.number} for row in session.execute(query)}


def _row(
    job: Job,
    measured: Mapping[str, tuple[float | None, int]],
    reasons: Mapping[str, Any],
    places: Mapping[str, dict[str, Any]],
) -> JobRow:
    summary = job.summary or {}
    best, grad_evals = measured.get(job.id, (job.best_value, job.grad_evals))
    metric = summary.get("best_metric") or ("accuracy:max" if best is not None else None)
    reason = reasons.get(job.id)
    return JobRow(
        id=job.id,
        name=job.name,
        team=job.team,
        submitted_by=job.submitted_by,
        state=JobState(job.state),
        state_since=job.state_since,
        wish=None if job.wish is None else Wish(job.wish),
        priority=job.priority,
        labels=job.labels,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        attempt=job.attempt,
        progress=ProgressRead.model_validate(
            {"epochs_done": job.epochs_done, "num_epochs": job.num_epochs, **job.progress}
        ),
        optimizer=job.spec.get("optimizer") or {},
        model=job.model,
        dataset=job.dataset,
        best_value=best,
        best_metric=metric,
        grad_evals=grad_evals,
        failure=_failure(job),
        why=None if reason is None else RowWhy.model_validate(reason),
        **places.get(job.id, {}),
    )


def _failure(job: Job) -> RowFailure | None:
    if job.failure_kind is None:
        return None
    kind = FailureKind.of(job.failure_kind)
    try:
        advice = hint(kind, JobSpec.model_validate(job.spec))
    except ValidationError:  # of another release: the row is worth more than its advice
        advice = ""
    return RowFailure(kind=kind, message=(job.failure_message or "")[:_MESSAGE_CHARS], hint=advice)
