"""Lists of jobs: which, in which order, page by page, and how many there are.

A page goes on after the last row of the one before (its sort key, when it was made, its id), which an index of the
table finds however far down it is. Rows without a value come last in either direction.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Select, func, literal_column, or_, select, tuple_
from sqlalchemy.orm import Session

from xsam.services import paging
from xsam.services.jobs.models import KIND_TRAINING, KIND_TRIAL, Job
from xsam.services.jobs.states import FailureKind, JobState

COUNTED_EXACTLY = 10_000
"""Of a group with more jobs a count only says that there are more."""
_MOST_COUNTED = 100_000


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs, or which studies, a list shows; empty fields filter nothing."""

    states: Sequence[JobState] = ()
    team: str | None = None
    user: str | None = None
    name: str | None = None
    q: str | None = None
    """A part of the name, in any case, or the beginning of the id."""
    labels: Mapping[str, str] | None = None
    optimizer: str | None = None
    model: str | None = None
    dataset: str | None = None
    failures: Sequence[FailureKind] = ()
    since: datetime | None = None
    """Made at this instant or later."""
    until: datetime | None = None
    """Made before this instant."""
    among: Select[str] | None = None
    """Trials with ids from this query, instead of jobs that stand for themselves."""


class JobSort(StrEnum):
    """Orders of a list; those with a minus descend. Jobs without a value come last in either."""

    CREATED = "created"
    CREATED_DESC = "-created"
    NAME = "name"
    NAME_DESC = "-name"
    STATE = "state"
    STATE_DESC = "-state"
    USER = "user"
    USER_DESC = "-user"
    BEST = "best"
    BEST_DESC = "-best"
    COST = "cost"
    COST_DESC = "-cost"

    @property
    def descends(self) -> bool:
        """Whether the largest comes first."""
        return self.startswith("-")

    @property
    def column(self) -> Any:
        """What is compared first; None where the time of making is all."""
        return _COLUMNS[self.removeprefix("-")]


_COLUMNS: Mapping[str, Any] = {
    "created": None,
    "name": Job.name,
    "state": Job.state,
    "user": Job.submitted_by,
    "best": Job.best_value,
    "cost": Job.grad_evals,
}


class CountBy(StrEnum):
    """What jobs are counted by."""

    STATE = "state"
    TEAM = "team"
    USER = "user"


@dataclass(frozen=True, slots=True)
class Group:
    """Jobs that have the same state, team or user, as asked for.

    Args:
        num: how many; `COUNTED_EXACTLY` where there are more.
        is_exact: whether there are no more.
        by: what they have in common.
    """

    num: int
    is_exact: bool
    by: Mapping[str, str]


def list_jobs(
    session: Session,
    *,
    where: JobFilter,
    sort: JobSort = JobSort.CREATED_DESC,
    cursor: str | None = None,
    limit: int = 50,
) -> tuple[Sequence[Job], str | None]:
    """Return a page of jobs and the cursor of the next page (None on the last).

    Raises:
        InvalidRequestError: the cursor is not one of this order's.
    """
    after = None if cursor is None else paging.decode(cursor, _key_of(sort), made=f" with sort={sort}")
    rows: list[Job] = []
    if after is None or after.value is not None or sort.column is None:
        rows += session.scalars(_with_value(_chosen(where), sort, after).limit(limit + 1))
    if sort.column is not None and len(rows) <= limit:
        last = after if after is not None and after.value is None else None
        rows += session.scalars(_without_value(_chosen(where), sort, last).limit(limit + 1 - len(rows)))
    page = rows[:limit]
    return page, _cursor(sort, page[-1]) if len(rows) > limit else None


def count_jobs(session: Session, *, where: JobFilter, by: Sequence[CountBy] = ()) -> Sequence[Group]:
    """Return how many jobs there are of each kind, most first; one group of all where they are counted by nothing."""
    columns = {
        CountBy.STATE: Job.state.label("state"),
        CountBy.TEAM: Job.team.label("team"),
        CountBy.USER: Job.submitted_by.label("user"),
    }
    wanted: list[Any] = [columns[one] for one in dict.fromkeys(by)]
    looked_at = _chosen(where, *(wanted or [literal_column("1")])).limit(_MOST_COUNTED + 1).subquery()
    keys = list(looked_at.c) if wanted else []
    query = select(func.count(), *keys).select_from(looked_at)
    rows = session.execute(query.group_by(*keys) if keys else query).all()
    is_all = sum(row[0] for row in rows) <= _MOST_COUNTED
    groups = [
        Group(
            num=min(row[0], COUNTED_EXACTLY),
            is_exact=is_all and row[0] <= COUNTED_EXACTLY,
            by={key.name: value for key, value in zip(keys, row[1:], strict=True)},
        )
        for row in rows
    ]
    return sorted(groups, key=lambda group: (-group.num, *group.by.values()))


def filtered(query: Any, where: JobFilter) -> Any:
    """Return a query of jobs that shows only those."""
    equal = {
        Job.team: where.team,
        Job.submitted_by: where.user,
        Job.name: where.name,
        Job.optimizer: where.optimizer,
        Job.model: where.model,
        Job.dataset: where.dataset,
    }
    for column, value in equal.items():
        if value is not None:
            query = query.where(column == value)
    if where.q is not None:
        in_name = Job.name.icontains(where.q, autoescape=True)
        query = query.where(or_(in_name, Job.id.startswith(where.q, autoescape=True)))
    for column, values in {Job.state: where.states, Job.failure_kind: where.failures}.items():
        if values:
            query = query.where(column.in_(values))
    return _by_time_and_labels(query, where)


def _by_time_and_labels(query: Any, where: JobFilter) -> Any:
    if where.since is not None:
        query = query.where(Job.created_at >= where.since)
    if where.until is not None:
        query = query.where(Job.created_at < where.until)
    for key, value in (where.labels or {}).items():
        query = query.where(Job.labels[key].as_string() == value)
    return query


def _chosen(where: JobFilter, *columns: Any) -> Any:
    query = select(*(columns or (Job,)))
    if where.among is not None:
        query = query.where(Job.kind == KIND_TRIAL, Job.id.in_(where.among))
    else:
        # Written out, because the lists' indexes hold such jobs only and a parameter could be anything.
        query = query.where(Job.kind == literal_column(f"'{KIND_TRAINING}'"))
    return filtered(query, where)


@dataclass(frozen=True, slots=True)
class _Key:
    value: Any
    created_at: datetime
    job_id: str


def _with_value(query: Any, sort: JobSort, after: _Key | None) -> Any:
    columns = [Job.created_at, Job.id] if sort.column is None else [sort.column, Job.created_at, Job.id]
    if sort.column is not None:
        query = query.where(sort.column.is_not(None))
    if after is not None:
        values = (
            [after.created_at, after.job_id] if sort.column is None else [after.value, after.created_at, after.job_id]
        )
        ours, theirs = tuple_(*columns), tuple_(*values)
        query = query.where(ours < theirs if sort.descends else ours > theirs)
    return query.order_by(*(column.desc() if sort.descends else column for column in columns))


def _without_value(query: Any, sort: JobSort, after: _Key | None) -> Any:
    """Return those without a value, newest first in either direction."""
    query = query.where(sort.column.is_(None))
    if after is not None:
        query = query.where(tuple_(Job.created_at, Job.id) < tuple_(after.created_at, after.job_id))
    return query.order_by(sort.column.desc(), Job.created_at.desc(), Job.id.desc())


def _cursor(sort: JobSort, last: Job) -> str:
    value = None if sort.column is None else getattr(last, sort.column.key)
    return paging.encode(sort, value, last.created_at.isoformat(), last.id)


def _key_of(sort: JobSort) -> Callable[..., _Key]:
    def read(made_for: str, value: Any, created_at: str, job_id: str) -> _Key:
        instant = datetime.fromisoformat(created_at)
        if made_for != sort or instant.tzinfo is None or not paging.ROW_ID.fullmatch(job_id):
            raise ValueError("made for another order")
        kinds = {None: (), Job.best_value: (int, float), Job.grad_evals: (int,)}.get(sort.column, (str,))
        if isinstance(value, bool) or not isinstance(value, (*kinds, type(None))):
            raise TypeError("not a value of this order")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ValueError("out of range")
        return _Key(value, instant.astimezone(UTC), job_id)

    return read
