"""The audit trail of teams, users and tokens; jobs have events of their own."""

from typing import Annotated

from fastapi import Query

from xsam.api.http.dependencies import PrincipalDep, ReadSession
from xsam.api.http.queries import AuditQuery
from xsam.api.http.router import Router
from xsam.services.teams import audit
from xsam.services.teams.schemas import AuditEventRead, AuditPage

router = Router("/v1/audit", "tokens")


@router.route("GET", "", "Who changed what?")
def list_audit_events(
    session: ReadSession, principal: PrincipalDep, query: Annotated[AuditQuery, Query()]
) -> AuditPage:
    """Return changes of teams, users and tokens, newest first; of their team, for team admins."""
    page, next_before = audit.list_events(session, principal, before=query.before, limit=query.limit)
    return AuditPage(items=[AuditEventRead.of(row) for row in page], next_before=next_before)
