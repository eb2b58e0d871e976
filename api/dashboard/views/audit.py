"""Who changed what of teams, users and tokens."""

from typing import Annotated

from fastapi import Query, Response
from pydantic import Field

from xsam.api.dashboard.pages import PageDep, Pages, ViewQuery
from xsam.api.http.dependencies import ReadSession
from xsam.api.http.queries import LARGEST_EVENT_ID
from xsam.services.teams import audit
from xsam.services.teams.schemas import AuditEventRead

_PER_PAGE = 100

pages = Pages()


class AuditView(ViewQuery):
    """Which page of the trail is looked at."""

    before: Annotated[int, Field(ge=1, le=LARGEST_EVENT_ID)] | None = None


@pages.get("/admin/audit")
def show_audit(page: PageDep, session: ReadSession, view: Annotated[AuditView, Query()]) -> Response:
    """Show changes, newest first; to admins of a team those of their team."""
    found, before = audit.list_events(session, page.principal, before=view.before, limit=_PER_PAGE)
    return page.render("audit.html", events=[AuditEventRead.of(row) for row in found], before=before)
