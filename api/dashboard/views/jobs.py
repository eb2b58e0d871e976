"""The list of jobs: found, sorted and paged in SQL, kept true row by row."""

from dataclasses import replace
from typing import Annotated

from fastapi import Query, Response

from xsam.api.dashboard.pages import PageDep, Pages
from xsam.api.http.access import visible_team
from xsam.api.http.dependencies import ReadSession
from xsam.api.http.queries import JobsQuery
from xsam.services.jobs import listing
from xsam.services.jobs.schemas import JobRead
from xsam.services.jobs.states import JobState

pages = Pages()


@pages.get("/jobs")
def show_jobs(page: PageDep, session: ReadSession, view: Annotated[JobsQuery, Query()]) -> Response:
    """Show a page of the jobs that the visitor may see."""
    where = replace(view.as_filter(), team=visible_team(page.principal, view.team))
    found, cursor = listing.list_jobs(session, where=where, cursor=view.cursor, limit=view.limit)
    return page.render(
        "jobs.html",
        view=view,
        state=view.model_dump(mode="json", exclude_defaults=True),
        states=list(JobState),
        rows=[JobRead.of(job) for job in found],
        later=cursor,
    )
