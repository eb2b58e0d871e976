"""The audit trail: who changed what of teams, users and tokens. What happens to jobs are the jobs' own events."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from xsam.services.teams.models import AuditEvent
from xsam.services.teams.roles import Principal, Role, require_role


def record(session: Session, principal: Principal, action: str, subject: str, *, team: str | None, **data: Any) -> None:
    """Append an event in the caller's transaction.

    Args:
        session: open in a unit of work.
        principal: who made the change.
        action: what was done, such as `team_changed`.
        subject: name or id of what was changed.
        team: the team it is about, whose admins may read the event.
        data: what it was changed to; never a secret.
    """
    event = AuditEvent(
        actor=principal.user, token_id=principal.token_id, action=action, subject=subject, team=team, data=data
    )
    session.add(event)


def list_events(
    session: Session, principal: Principal, *, before: int | None = None, limit: int = 100
) -> tuple[Sequence[AuditEvent], int | None]:
    """Return a page of events, newest first, and where the next page begins: all events, or those of one's own team.

    Raises:
        ForbiddenError: the caller is neither an admin of the service nor of their team.
    """
    require_role(principal, Role.ADMIN)
    query = select(AuditEvent).order_by(AuditEvent.id.desc()).limit(limit + 1)
    if principal.visible_team is not None:
        query = query.where(AuditEvent.team == principal.visible_team)
    if before is not None:
        query = query.where(AuditEvent.id < before)
    rows = session.scalars(query).all()
    page = rows[:limit]
    return page, page[-1].id if len(rows) > limit else None
