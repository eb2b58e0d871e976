"""Everything the API reads of studies, as the documents it answers with: studies, pages of trials, plots."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from xsam.services import paging
from xsam.services.errors import ConflictError, NotFoundError
from xsam.services.jobs.listing import JobFilter
from xsam.services.jobs.models import Job
from xsam.services.jobs.states import JobState
from xsam.services.metrics import service as metrics
from xsam.services.metrics.models import EpochMetric
from xsam.services.specs.job import JobSpec
from xsam.services.studies import analysis, plots, service
from xsam.services.studies.arms import arms_of, job_spec
from xsam.services.studies.models import Study, Trial
from xsam.services.studies.schemas import StudyBrief, StudyPage, StudyRead, TrialPage, TrialRead
from xsam.services.studies.service import spec_of
from xsam.services.studies.spec import Objective, read_space
from xsam.services.studies.trials import SEARCH

_FAR = 1e300
"""Stands for a missing value when sorting, so that trials without one come last."""


class TrialSort(StrEnum):
    """Orders of a page; those with a minus descend. Trials without a value come last in either."""

    NUMBER = "number"
    NUMBER_DESC = "-number"
    VALUE = "value"
    VALUE_DESC = "-value"
    GRAD_EVALS = "grad_evals"
    GRAD_EVALS_DESC = "-grad_evals"


@dataclass(frozen=True, slots=True)
class TrialFilter:
    """Which trials a page shows; empty fields filter nothing."""

    states: Collection[JobState] = ()
    arm: str | None = None
    phase: str | None = None
    stopped_early: bool | None = None


def page(  # noqa: PLR0913 - what every page has
    session: Session,
    study_id: str,
    objective: Objective,
    *,
    where: TrialFilter,
    sort: TrialSort = TrialSort.NUMBER,
    cursor: str | None = None,
    limit: int = 50,
) -> TrialPage:
    """Return a page of a study's trials.

    Args:
        session: open for reading.
        study_id: the study.
        objective: what a running trial's value is.
        where: which trials.
        sort: their order.
        cursor: `next_cursor` of the page before, with the same order.
        limit: trials on the page.

    Raises:
        InvalidRequestError: the cursor is not one of this order's.
    """
    key = _key(sort)
    descends = sort.startswith("-")
    query = _filtered(select(Trial, Job, key).join(Job, Job.id == Trial.job_id), study_id, where)
    if cursor is not None:
        value, number = paging.decode(cursor, _key_for(sort), made=f" with sort={sort}")
        beyond = key < value if descends else key > value
        query = query.where(or_(beyond, and_(key == value, Trial.number > number)))
    query = query.order_by(key.desc() if descends else key.asc(), Trial.number).limit(limit + 1)
    rows = session.execute(query).all()
    shown = rows[:limit]
    live = _live_values(session, [row[1].id for row in shown if row[1].state == JobState.RUNNING], objective)
    items = []
    for trial, job, _ in shown:
        value, grad_evals = live.get(job.id, (trial.value, trial.grad_evals))
        items.append(TrialRead.of(trial, job, value=value, grad_evals=grad_evals))
    more = len(rows) > limit
    return TrialPage(items=items, next_cursor=paging.encode(sort, shown[-1][2], shown[-1][0].number) if more else None)


def _filtered(query: Any, study_id: str, where: TrialFilter) -> Any:
    query = query.where(Trial.study_id == study_id)
    if where.states:
        query = query.where(Job.state.in_(where.states))
    if where.arm is not None:
        query = query.where(Trial.arm == where.arm)
    if where.phase is not None:
        query = query.where(Trial.phase == where.phase)
    if where.stopped_early is not None:
        query = query.where(Trial.is_stopped_early.is_(where.stopped_early))
    return query


def _key(sort: TrialSort) -> ColumnElement[float]:
    column = {"number": Trial.number, "value": Trial.value, "grad_evals": Trial.grad_evals}[sort.removeprefix("-")]
    return func.coalesce(column, -_FAR if sort.startswith("-") else _FAR)


def _live_values(session: Session, job_ids: Sequence[str], objective: Objective) -> dict[str, tuple[float, int]]:
    """Return the present objective and the gradient evaluations of running trials that have measured something."""
    if not job_ids:
        return {}
    query = metrics.values_by_epoch(objective.metric).where(EpochMetric.job_id.in_(job_ids))
    query = query.order_by(EpochMetric.job_id, EpochMetric.epoch)
    live: dict[str, tuple[float, int]] = {}
    for job_id, value, grad_evals in session.execute(query):
        known = live.get(job_id)
        if known is not None and objective.at == "best":
            value = max(known[0], value) if objective.mode == "max" else min(known[0], value)  # noqa: PLW2901
        live[job_id] = (value, grad_evals)
    return live


def _key_for(sort: TrialSort) -> Callable[..., tuple[float, int]]:
    def read(made_for: str, key: float, number: int) -> tuple[float, int]:
        if made_for != sort or isinstance(key, bool) or not isinstance(key, int | float) or type(number) is not int:
            raise ValueError("made for another order")
        if not -_FAR <= key <= _FAR or not 0 <= number < 2**31:
            raise ValueError("out of range")
        return key, number

    return read


_EXPORT_PAGE = 1_000


def read_study(session: Session, study_id: str) -> StudyRead:
    """Return a study and what it says so far.

    Raises:
        NotFoundError: no such study.
    """
    job, study = service.get(session, study_id)
    return analysis.answer(session, job, study)


def list_studies(session: Session, *, where: JobFilter, cursor: str | None, limit: int) -> StudyPage:
    """Return a page of studies, newest first.

    Raises:
        InvalidRequestError: the cursor is not one of ours.
    """
    page, next_cursor = service.list_studies(session, where=where, cursor=cursor, limit=limit)
    counts = _counts(session, [job.id for job, _ in page])
    return StudyPage(items=[_brief(session, job, study, counts) for job, study in page], next_cursor=next_cursor)


def read_trials(
    session: Session, study_id: str, *, where: TrialFilter, sort: TrialSort, cursor: str | None, limit: int
) -> TrialPage:
    """Return a page of a study's trials.

    Raises:
        NotFoundError: no such study.
        InvalidRequestError: the cursor is not one of this order's.
    """
    job, _ = service.get(session, study_id)
    objective = spec_of(job).objective
    return page(session, study_id, objective, where=where, sort=sort, cursor=cursor, limit=limit)


def all_trials(session: Session, study_id: str, *, where: TrialFilter, sort: TrialSort) -> list[TrialRead]:
    """Return all of a study's trials that match, for an export.

    Raises:
        NotFoundError: no such study.
    """
    return list(_every_trial(session, study_id, where, sort))


def read_plots(session: Session, study_id: str) -> plots.PlotsRead:
    """Return the data of a study's plots.

    Raises:
        NotFoundError: no such study.
    """
    job, study = service.get(session, study_id)
    spec = spec_of(job)
    columns = (Trial.number, Trial.arm, Trial.params, Trial.value, Trial.grad_evals)
    query = select(*columns).where(Trial.study_id == study_id, Trial.phase == SEARCH, Trial.value.is_not(None))
    measured = [
        plots.Measured(number=row.number, arm=row.arm, params=row.params, value=row.value, grad_evals=row.grad_evals)
        for row in session.execute(query.order_by(Trial.number))
    ]
    return plots.plots(read_space(study.space), spec.objective.mode, spec.base.optimizer.variant, measured)


def winning_job(session: Session, study_id: str, *, number: int | None = None) -> JobSpec:
    """Return the job of a study's best configuration, or of one trial: its values in the base job, with its seed.

    Raises:
        NotFoundError: no such study or trial.
        ConflictError: no trial has a value yet.
    """
    job, study = service.get(session, study_id)
    spec = spec_of(job)
    if number is not None:
        trial = session.scalar(select(Trial).where(Trial.study_id == study_id, Trial.number == number))
        if trial is None:
            raise NotFoundError(f"study {study_id} has no trial {number}", field="trial")
        arm_name, point, seed = trial.arm, trial.params, trial.seed
    else:
        best = analysis.winner(session, job)
        if best is None:
            raise ConflictError(f"study {study_id} has no trial with a value yet; there is nothing to promote")
        arm_name, point, seed = best.arm, best.point, spec.base.seed
    arms = arms_of(spec, space=read_space(study.space), num_configs=study.num_configs)
    arm = next(arm for arm in arms if arm.name == arm_name)
    # The whole run, not the share of compute that a trial had.
    return job_spec(spec.model_copy(update={"compute": "epochs"}), arm, point, seed)


def _every_trial(session: Session, study_id: str, where: TrialFilter, sort: TrialSort) -> Iterator[TrialRead]:
    cursor = None
    while True:
        page = read_trials(session, study_id, where=where, sort=sort, cursor=cursor, limit=_EXPORT_PAGE)
        yield from page.items
        cursor = page.next_cursor
        if cursor is None:
            return


def _counts(session: Session, study_ids: Sequence[str]) -> dict[str, dict[JobState, int]]:
    query = (
        select(Trial.study_id, Job.state, func.count())
        .join(Job, Job.id == Trial.job_id)
        .where(Trial.study_id.in_(study_ids))
        .group_by(Trial.study_id, Job.state)
    )
    counts: dict[str, dict[JobState, int]] = {}
    for study_id, state, num in session.execute(query):
        counts.setdefault(study_id, {})[JobState(state)] = num
    return counts


def _brief(session: Session, job: Job, study: Study, counts: dict[str, dict[JobState, int]]) -> StudyBrief:
    best = func.max(Trial.value) if spec_of(job).objective.mode == "max" else func.min(Trial.value)
    return StudyBrief(
        id=job.id,
        name=job.name,
        team=job.team,
        submitted_by=job.submitted_by,
        state=JobState(job.state),
        hold=study.hold,
        created_at=job.created_at,
        finished_at=job.finished_at,
        num_by_state=counts.get(job.id, {}),
        best_value=session.scalar(select(best).where(Trial.study_id == job.id, Trial.phase == SEARCH)),
    )
