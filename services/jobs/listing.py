"""Lists of jobs: which, in which order, page by page, and how many there are.

A page goes on after the last row of the one before, or goes back from the first row of the one after (its sort key,
when it was made, its id), which an index of the table finds however far down it is. Rows without a value come last in
either direction.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import Select, func, literal_column, or_, select, tuple_
from sqlalchemy.orm import Session

from xsam.services import paging
from xsam.services.db.text import ascii_lower
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


class JobsPage(NamedTuple):
    """A page of a list."""

    jobs: Sequence[Job]
    next_cursor: str | None
    """Of the page after; None on the last."""
    previous_cursor: str | None
    """Of the page before; None on the first."""


def list_jobs(
    session: Session,
    *,
    where: JobFilter,
    sort: JobSort = JobSort.CREATED_DESC,
    cursor: str | None = None,
    limit: int = 50,
) -> JobsPage:
    """Return a page of jobs. Going back ends in a whole first page, as it is now.

    Raises:
        InvalidRequestError: the cursor is not one of this order's.
    """
    start = None if cursor is None else paging.decode(cursor, _key_of(sort), made=f" with sort={sort}")
    is_back = start is not None and start.is_before
    parts = _parts(_chosen(where), sort)
    if start is not None:
        parts = parts[: start.part + 1] if is_back else parts[start.part :]
    if is_back:
        parts = [part.turned() for part in reversed(parts)]
    rows: list[Job] = []
    for part in parts:
        key = start if part is parts[0] else None
        if len(rows) <= limit:
            rows += session.scalars(part.rows(key).limit(limit + 1 - len(rows)))
    has_more, page = len(rows) > limit, rows[:limit]
    if is_back:
        if not has_more:
            return list_jobs(session, where=where, sort=sort, limit=limit)
        page.reverse()
    has_next, has_previous = is_back or has_more, has_more if is_back else bool(start and page)
    return JobsPage(
        page,
        next_cursor=_cursor(sort, page[-1], is_before=False) if has_next else None,
        previous_cursor=_cursor(sort, page[0], is_before=True) if has_previous else None,
    )


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
        in_name = ascii_lower(Job.name).contains(where.q.lower(), autoescape=True)
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
    """A row's place in an order."""

    values: Sequence[Any]
    """Of the columns of its part."""
    part: int
    is_before: bool
    """Whether the page ends before this row, instead of beginning after it."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows of a list that have a value, or those that have none; the latter come last, newest first."""

    query: Any
    columns: Sequence[Any]
    descends: bool
    of_one: Sequence[Any] = ()
    """Columns that are the same in all of its rows, and that its index begins with."""

    def turned(self) -> "_Part":
        return replace(self, descends=not self.descends)

    def rows(self, key: _Key | None) -> Any:
        query = self.query
        if key is not None:
            ours, theirs = tuple_(*self.columns), tuple_(*key.values)
            query = query.where(ours < theirs if self.descends else ours > theirs)
        columns = (*self.of_one, *self.columns)
        return query.order_by(*(column.desc() if self.descends else column for column in columns))


def _parts(query: Any, sort: JobSort) -> list[_Part]:
    made = [Job.created_at, Job.id]
    if sort.column is None:
        return [_Part(query, made, sort.descends)]
    with_value = _Part(query.where(sort.column.is_not(None)), [sort.column, *made], sort.descends)
    return [with_value, _Part(query.where(sort.column.is_(None)), made, descends=True, of_one=[sort.column])]


def _cursor(sort: JobSort, row: Job, *, is_before: bool) -> str:
    value = None if sort.column is None else getattr(row, sort.column.key)
    return paging.encode(sort, value, row.created_at.isoformat(), row.id, *([True] if is_before else []))


def _key_of(sort: JobSort) -> Callable[..., _Key]:
    def read(made_for: str, value: Any, created_at: str, job_id: str, is_before: Any = False) -> _Key:
        instant = datetime.fromisoformat(created_at)
        if made_for != sort or instant.tzinfo is None or not paging.ROW_ID.fullmatch(job_id):
            raise ValueError("made for another order")
        kinds = {None: (), Job.best_value: (int, float), Job.grad_evals: (int,)}.get(sort.column, (str,))
        if isinstance(value, bool) or not isinstance(value, (*kinds, type(None))) or not isinstance(is_before, bool):
            raise TypeError("not a value of this order")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ValueError("out of range")
        made = (instant.astimezone(UTC), job_id)
        if sort.column is None or value is None:
            return _Key(made, 0 if sort.column is None else 1, is_before)
        return _Key((value, *made), 0, is_before)

    return read
