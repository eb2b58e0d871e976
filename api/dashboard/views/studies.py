"""The list of studies: newest first, found by state and name, each with how far it is and its best value."""

from dataclasses import replace
from typing import Annotated

from fastapi import Query, Response

from xsam.api.dashboard.copying import of_studies
from xsam.api.dashboard.pages import PageDep, Pages
from xsam.api.http.access import visible_team
from xsam.api.http.dependencies import ReadSession
from xsam.api.http.queries import JobsQuery
from xsam.services.jobs.states import JobState
from xsam.services.studies import reading

_COPIED = {"state", "team", "name", "limit"}
"""Filters that the command and the client have as well."""

pages = Pages()


@pages.get("/studies")
def show_studies(page: PageDep, session: ReadSession, view: Annotated[JobsQuery, Query()]) -> Response:
    """Show a page of the studies that the visitor may see."""
    where = replace(view.as_filter(), team=visible_team(page.principal, view.team))
    found = reading.list_studies(session, where=where, cursor=view.cursor, limit=view.limit)
    state = view.model_dump(mode="json", exclude_defaults=True)
    return page.render(
        "studies.html",
        view=view,
        state=state,
        copies=of_studies(state) if state.keys() <= _COPIED else None,
        states=list(JobState),
        rows=found.items,
        later=found.next_cursor,
    )
