"""The audit trail of teams, users and tokens; jobs have events of their own."""

from typing import Annotated

from fastapi import APIRouter, Query

from xsam.api.http.dependencies import PrincipalDep, ReadSession
from xsam.api.http.problems import documented
from xsam.api.http.team_queries import AuditQuery
from xsam.services.teams import audit
from xsam.services.teams.schemas import AuditEventRead, AuditPage

router = APIRouter(
    prefix="/v1/audit",
    tags=["tokens"],
    responses=documented("validation_failed", "invalid_request", "database_unavailable", "internal_error"),
)


@router.get("", operation_id="listAuditEvents", summary="Who changed what?")
def list_audit_events(
    session: ReadSession, principal: PrincipalDep, query: Annotated[AuditQuery, Query()]
) -> AuditPage:
    """Return changes of teams, users and tokens, newest first; of their team, for team admins."""
    page, next_before = audit.list_events(session, principal, before=query.before, limit=query.limit)
    return AuditPage(items=[AuditEventRead.of(row) for row in page], next_before=next_before)
