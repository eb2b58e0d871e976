"""Pages of trials: filtered, sorted, with a cursor, and the live values of those that run."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from xsam.services import paging
from xsam.services.jobs.models import Job
from xsam.services.jobs.states import JobState
from xsam.services.metrics.models import EpochMetric
from xsam.services.studies.models import Trial
from xsam.services.studies.schemas import TrialPage, TrialRead
from xsam.services.studies.spec import Objective

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
    metric = getattr(EpochMetric, objective.metric)
    columns = (EpochMetric.job_id, metric, EpochMetric.grad_evals)
    query = select(*columns).where(EpochMetric.job_id.in_(job_ids)).order_by(EpochMetric.job_id, EpochMetric.epoch)
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
