"""The list of jobs: found, sorted and paged in SQL, kept true row by row, and changed many at once."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Annotated, Any

from fastapi import Query, Response
from pydantic import Field, StringConstraints, ValidationError
from sqlalchemy.orm import Session

from xsam.api.dashboard.copying import of_jobs
from xsam.api.dashboard.filters import query
from xsam.api.dashboard.pages import PageDep, Pages, ViewQuery
from xsam.api.dashboard.visitors import Form, FormDep
from xsam.api.http.access import visible_team
from xsam.api.http.dependencies import ReadSession, WriteSession
from xsam.api.http.queries import LARGEST_COUNT, JobsQuery
from xsam.api.http.validation import field_errors
from xsam.services.errors import InvalidRequestError
from xsam.services.jobs import bulk
from xsam.services.jobs.bodies import JobMatch, JobsUpdate
from xsam.services.jobs.bulk import Selection
from xsam.services.jobs.listing import CountBy
from xsam.services.jobs.models import KIND_STUDY, Job
from xsam.services.jobs.schemas import BulkRead
from xsam.services.jobs.states import FailureKind, JobState
from xsam.services.reports import job_rows
from xsam.services.reports.job_rows import JobCount, JobRowPage
from xsam.services.specs.dataset import DATASETS
from xsam.services.specs.model import MODELS
from xsam.services.specs.optimizer import OPTIMIZERS

_MOST_ROWS = 200

_NOT_FILTERS = ("sort", "cursor", "page", "limit", "fields")
FIRST_PAGE: Mapping[str, None] = {"cursor": None, "page": None}
"""What a link changes besides a filter."""

pages = Pages()

BULK: Mapping[str, Callable[..., BulkRead]] = {
    "cancel": bulk.cancel,
    "pause": bulk.pause,
    "resume": bulk.resume,
    "retry": bulk.retry,
}
SORTS = {"name": "Name", "state": "State", "best": "Best", "user": "By", "created": "When", "cost": "Cost"}
"""Columns by which the list is sorted, with their titles."""


class JobsView(ViewQuery, JobsQuery):
    """Which jobs are looked at, in which order, and which page of them."""

    page: Annotated[int, Field(ge=1, le=LARGEST_COUNT)] = 1
    """How the page is called; where it begins is the cursor's to say."""

    def match(self) -> str | None:
        """Return the filter as the verbs on several jobs take it; None where it says nothing."""
        where: dict[str, Any] = {name: value for name, value in self.changed().items() if name in JobMatch.model_fields}
        if self.label:
            where["labels"] = dict(one.split("=", 1) for one in self.label)
        return json.dumps(where) if where else None

    def chips(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Return the filters in force: their names, their values, and what takes each away."""
        found: list[tuple[str, str, dict[str, Any]]] = []
        for name, value in self.changed().items():
            if name in _NOT_FILTERS:
                continue
            for one in value if isinstance(value, list) else [value]:
                rest = [other for other in value if other != one] if isinstance(value, list) else None
                found.append((name, str(one), {name: rest, **FIRST_PAGE}))
        return found


class RowsView(ViewQuery):
    """Rows that a list shows already and wants to show as they are now."""

    id: Annotated[
        list[Annotated[str, StringConstraints(pattern=r"^[a-z0-9]{1,32}$")]],
        Field(default_factory=list, max_length=_MOST_ROWS),
    ]


@pages.get("/jobs")
def show_jobs(page: PageDep, session: ReadSession, view: Annotated[JobsView, Query()]) -> Response:
    """Show a page of the jobs that the visitor may see."""
    team = visible_team(page.principal, view.team)
    where = replace(view.as_filter(), team=team)
    if view.study is not None:
        where = replace(where, among=job_rows.trials_of(session, view.study, page.principal))
    found = job_rows.list_rows(
        session,
        where=where,
        sort=view.sort,
        cursor=view.cursor,
        limit=view.limit,
        visible_team=page.principal.visible_team,
    )
    state = view.changed()
    counted = job_rows.count(session, where=replace(where, states=()), by=[CountBy.STATE])
    return page.render(
        "jobs.html",
        view=view,
        state=state,
        first=FIRST_PAGE,
        counts=_counts(counted),
        pager=_pager(view, found, counted),
        states=list(JobState),
        failures=list(FailureKind),
        sorts=SORTS,
        known={"optimizer": sorted(OPTIMIZERS), "model": sorted(MODELS), "dataset": sorted(DATASETS)},
        rows=found.items,
        copies=of_jobs({name: value for name, value in state.items() if name not in ("cursor", "page", "fields")}),
    )


@pages.get("/jobs/rows")
def show_rows(page: PageDep, session: ReadSession, view: Annotated[RowsView, Query()]) -> Response:
    """Show single rows of the list; those that the visitor may not see are not there."""
    found = [session.get(Job, job_id) for job_id in view.id]
    seen = [job for job in found if job is not None and job.kind != KIND_STUDY and page.principal.sees(job.team)]
    return page.render("job_rows.html", rows=job_rows.rows_of(session, seen, visible_team=page.principal.visible_team))


@pages.post("/jobs/bulk")
def change_jobs(page: PageDep, session: WriteSession, form: FormDep) -> Response:
    """Do one thing to the jobs that are selected, and tell what came of each."""
    verb, ids = form.one("verb"), form.many("sel")
    if not ids:
        raise InvalidRequestError("no job is selected; mark some rows of the list", field="sel")
    if verb == "compare":
        return page.go(f"/jobs/compare{query({'id': ids})}")
    done = _change(page, session, verb, ids, form)
    return page.render("bulk_done.html", verb=verb, result=done)


@dataclass(frozen=True, slots=True)
class Pager:
    """Where a page stands in its list, and the addresses of those around it."""

    page: int
    num_pages: int | None
    """None where it is not counted so far."""
    num_rows: str
    previous: str | None
    next: str | None


def _pager(view: JobsView, found: JobRowPage, counted: JobCount) -> Pager:
    groups = [group for group in counted.groups if not view.state or group.state in view.state]
    num, is_exact = sum(group.num for group in groups), all(group.is_exact for group in groups)
    state, at = view.changed(), view.page if found.previous_cursor else 1
    num_pages = max(1, ceil(num / view.limit)) if is_exact else None
    return Pager(
        page=at if num_pages is None or at <= num_pages else num_pages,
        num_pages=num_pages,
        num_rows=_number(num, is_exact),
        previous=query(state, cursor=found.previous_cursor, page=max(at - 1, 1)) if found.previous_cursor else None,
        next=query(state, cursor=found.next_cursor, page=at + 1) if found.next_cursor else None,
    )


def _number(num: int, is_exact: bool) -> str:
    return f"{num:,}{'' if is_exact else '+'}"


def _counts(found: JobCount) -> dict[str | None, str]:
    """Return how many jobs there are by state, and in all under None; `10,000+` where there are more."""
    groups: dict[str | None, str] = {str(group.state): _number(group.num, group.is_exact) for group in found.groups}
    return {None: _number(found.num, found.is_exact), **groups}


def _change(page: PageDep, session: Session, verb: str, ids: list[str], form: Form) -> BulkRead:
    visible = page.principal.visible_team
    if verb == "update":
        wanted = _update(ids, form)
        return bulk.update(session, wanted.chosen(visible), wanted.change, actor=page.principal)
    if verb not in BULK:
        raise InvalidRequestError(
            f"verb is {verb[:40]!r}; allowed are {', '.join(BULK)}, update, compare", field="verb"
        )
    return BULK[verb](session, Selection(ids=ids, visible_team=visible), actor=page.principal)


def _update(ids: list[str], form: Form) -> JobsUpdate:
    key, is_set, value = form.one("label").partition("=")
    change = {
        **({"priority": form.one("priority")} if form.one("priority") else {}),
        **({"labels": {key: value if is_set else None}} if key else {}),
    }
    try:
        return JobsUpdate.model_validate({"ids": ids, "change": change})
    except ValidationError as e:
        first = field_errors(e.errors(), JobsUpdate)[0]
        raise InvalidRequestError(f"{first.field} {first.message}", field=first.field) from e
