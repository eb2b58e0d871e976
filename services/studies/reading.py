"""Everything the API reads of studies, as the documents it answers with: studies, pages of trials, plots."""

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from xsam.services import paging
from xsam.services.db.clock import db_now
from xsam.services.errors import ConflictError, InvalidRequestError, NotFoundError
from xsam.services.jobs.listing import JobFilter
from xsam.services.jobs.models import Job
from xsam.services.jobs.states import TERMINAL_STATES, JobState
from xsam.services.metrics import service as metrics
from xsam.services.metrics.models import EpochMetric
from xsam.services.specs.job import JobSpec
from xsam.services.studies import analysis, plots, service
from xsam.services.studies import space as spaces
from xsam.services.studies.arms import arms_of, job_spec, num_planned
from xsam.services.studies.models import Study, Trial
from xsam.services.studies.ranges import Range, sort_column
from xsam.services.studies.schemas import (
    MapRead,
    MapStat,
    Measured,
    PlotsRead,
    PointRead,
    StudyBrief,
    StudyPage,
    StudyRead,
    TrialPage,
    TrialRead,
)
from xsam.services.studies.service import spec_of
from xsam.services.studies.space import Axis
from xsam.services.studies.spec import Objective, read_space
from xsam.services.studies.trials import SEARCH

_SETTLES = timedelta(seconds=10)
"""No transaction that ends a trial is open so long."""
_FAR = 1e300
"""Stands for a missing value when sorting, so that trials without one come last."""


_NO_AXES: Mapping[str, Axis] = {}


class TrialSort(StrEnum):
    """Orders of a page, besides those by a searched field (`params.` and its path); those with a minus descend.

    Trials without a value come last in either.
    """

    NUMBER = "number"
    NUMBER_DESC = "-number"
    VALUE = "value"
    VALUE_DESC = "-value"
    GRAD_EVALS = "grad_evals"
    GRAD_EVALS_DESC = "-grad_evals"
    SECONDS = "seconds"
    SECONDS_DESC = "-seconds"


@dataclass(frozen=True, slots=True)
class TrialFilter:
    """Which trials a page shows; empty fields filter nothing."""

    states: Collection[JobState] = ()
    arm: str | None = None
    phase: str | None = None
    stopped_early: bool | None = None
    ranges: Sequence[Range] = ()


def page(  # noqa: PLR0913 - what every page has
    session: Session,
    study_id: str,
    objective: Objective,
    *,
    where: TrialFilter,
    sort: str = TrialSort.NUMBER,
    cursor: str | None = None,
    limit: int = 50,
    axes: Mapping[str, Axis] = _NO_AXES,
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
        axes: the searched fields, which orders and ranges may name.

    Raises:
        InvalidRequestError: the cursor is not one of this order's, or there is no such field.
    """
    key = _key(sort, axes)
    descends = sort.startswith("-")
    query = _filtered(select(Trial, Job, key).join(Job, Job.id == Trial.job_id), study_id, where)
    for one in where.ranges:
        query = query.where(*one.holds(axes))
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


def _key(sort: str, axes: Mapping[str, Axis]) -> ColumnElement[float]:
    column = sort_column(sort.removeprefix("-"), axes)
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


def _key_for(sort: str) -> Callable[..., tuple[float, int]]:
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
    session: Session, study_id: str, *, where: TrialFilter, sort: str, cursor: str | None, limit: int
) -> TrialPage:
    """Return a page of a study's trials.

    Raises:
        NotFoundError: no such study.
        InvalidRequestError: the cursor is not one of this order's.
    """
    job, study = service.get(session, study_id)
    objective, axes = spec_of(job).objective, spaces.axes(read_space(study.space))
    return page(session, study_id, objective, where=where, sort=sort, cursor=cursor, limit=limit, axes=axes)


def all_trials(session: Session, study_id: str, *, where: TrialFilter, sort: str) -> list[TrialRead]:
    """Return all of a study's trials that match, for an export.

    Raises:
        NotFoundError: no such study.
    """
    return list(_every_trial(session, study_id, where, sort))


def read_plots(
    session: Session, study_id: str, *, after: datetime | None = None, phases: Collection[str] = (SEARCH,)
) -> PlotsRead:
    """Return the data of a study's plots.

    Args:
        session: open for reading.
        study_id: the study.
        after: only points of trials that ended after this instant, or a little before it; None for all.
        phases: of the trials.

    Raises:
        NotFoundError: no such study.
    """
    job, study = service.get(session, study_id)
    spec, axes = spec_of(job), spaces.axes(read_space(study.space))
    now = session.execute(select(db_now())).scalar_one()
    rows = _ended(session, study_id)
    own = _measured(rows, spec.base.optimizer.variant)
    points = plots.best_so_far(spec.objective.mode, [_point(row) for row in rows if row[0].phase in phases])
    if after is not None:
        new = {row[0].number for row in rows if row[1].state_since > after - _SETTLES}
        points = [point for point in points if point.number in new]
    usual = plots.usual_axes(axes)
    mode = spec.objective.mode
    return PlotsRead(
        as_of=now,
        axes=plots.axes_read(axes),
        points=points,
        map=None if usual is None else plots.value_map(axes, mode, usual, own, MapStat.BEST),
        importances=plots.importances(axes, mode, own),
    )


def read_map(
    session: Session,
    study_id: str,
    *,
    across: str | None = None,
    down: str | None = None,
    stat: MapStat = MapStat.BEST,
    arm: str | None = None,
) -> MapRead:
    """Return what an arm's trials of the search are worth over two axes.

    Raises:
        NotFoundError: no such study.
        InvalidRequestError: it has no such axes, or no such arm.
    """
    job, study = service.get(session, study_id)
    spec, axes = spec_of(job), spaces.axes(read_space(study.space))
    usual = plots.usual_axes(axes)
    if usual is None:
        raise InvalidRequestError(f"study {study_id} searches {len(axes)} field; a map needs two", field="across")
    paths = (across or usual[0], down or usual[1])
    for field, path in zip(("across", "down"), paths, strict=True):
        if path not in axes:
            raise InvalidRequestError(f"{field} is {path!r}; allowed is one of {', '.join(axes)}", field=field)
    if paths[0] == paths[1]:
        raise InvalidRequestError(f"across and down are both {paths[0]}; a map needs two fields", field="down")
    rows = _ended(session, study_id)
    arms = [one.name for one in arms_of(spec, space=read_space(study.space), num_configs=study.num_configs)]
    if arm is not None and arm not in arms:
        raise InvalidRequestError(f"arm is {arm!r}; allowed is one of {', '.join(arms)}", field="arm")
    measured = _measured(rows, arm or spec.base.optimizer.variant)
    placed = [trial for trial in measured if all(path in trial.params for path in paths)]
    return plots.value_map(axes, spec.objective.mode, paths, placed, stat)


def version(session: Session, study_id: str) -> str:
    """Return a text that changes whenever anything that is drawn of the study's trials does.

    Raises:
        NotFoundError: no such study.
    """
    job, study = service.get(session, study_id)
    numbers = (
        select(func.count(), func.sum(Job.epochs_done), func.sum(Job.attempt), func.max(Job.state_since))
        .select_from(Trial)
        .join(Job, Job.id == Trial.job_id)
        .where(Trial.study_id == study_id)
    )
    found = [study.revision, job.state, *session.execute(numbers).one()]
    return hashlib.sha256(repr(found).encode()).hexdigest()[:24]


def _ended(session: Session, study_id: str) -> Sequence[tuple[Trial, Job]]:
    """Return the trials that have ended, by number."""
    query = select(Trial, Job).join(Job, Job.id == Trial.job_id)
    query = query.where(Trial.study_id == study_id, Job.state.in_(TERMINAL_STATES)).order_by(Trial.number)
    return [(row[0], row[1]) for row in session.execute(query)]


def _measured(rows: Sequence[tuple[Trial, Job]], arm: str) -> list[Measured]:
    return [
        Measured(
            number=trial.number,
            arm=trial.arm,
            params=trial.params,
            value=trial.value,
            grad_evals=trial.grad_evals,
            num_epochs=job.epochs_done,
        )
        for trial, job in rows
        if trial.arm == arm and trial.phase == SEARCH and trial.value is not None
    ]


def _point(row: tuple[Trial, Job]) -> PointRead:
    trial, job = row
    return PointRead(
        number=trial.number,
        id=job.id,
        arm=trial.arm,
        phase=trial.phase,
        config=trial.config,
        seed=trial.seed,
        state=JobState(job.state),
        params=trial.params,
        value=trial.value,
        grad_evals=trial.grad_evals,
        train_s=(job.summary or {}).get("train_s"),
        is_stopped_early=trial.is_stopped_early,
        failure_kind=job.failure_kind,
        best=None,
    )


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


def _every_trial(session: Session, study_id: str, where: TrialFilter, sort: str) -> Iterator[TrialRead]:
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
    spec = spec_of(job)
    arms = arms_of(spec, space=read_space(study.space), num_configs=study.num_configs)
    best = func.max(Trial.value) if spec.objective.mode == "max" else func.min(Trial.value)
    return StudyBrief(
        id=job.id,
        name=job.name,
        team=job.team,
        submitted_by=job.submitted_by,
        state=JobState(job.state),
        hold=study.hold,
        created_at=job.created_at,
        finished_at=job.finished_at,
        num_trials=num_planned(spec, arms),
        num_by_state=counts.get(job.id, {}),
        best_value=session.scalar(select(best).where(Trial.study_id == job.id, Trial.phase == SEARCH)),
    )
