"""What the API calls for webhooks: a team's admins add and remove them, its members see whether messages arrive."""

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from xsam.services.errors import ConflictError, NotFoundError
from xsam.services.notifications import outbox, sending
from xsam.services.notifications.models import Delivery, Webhook
from xsam.services.notifications.schemas import WebhookWrite
from xsam.services.settings import NotificationSettings
from xsam.services.teams import audit
from xsam.services.teams import service as teams
from xsam.services.teams.roles import Principal, require_team_admin

MAX_WEBHOOKS = 20
_SHOWN = 50


def add(
    session: Session, principal: Principal, team: str, wanted: WebhookWrite, settings: NotificationSettings
) -> Webhook:
    """Add a webhook with a new secret.

    Raises:
        NotFoundError: no such team, or it is not the caller's to see.
        ForbiddenError: the caller is no admin of it.
        InvalidRequestError: the operator does not allow the address.
        ConflictError: the team has as many as it may.
    """
    require_team_admin(principal, team)
    teams.get_team(session, principal, team)
    sending.check_url(wanted.url, settings)
    number = session.scalar(select(func.count()).where(Webhook.team == team)) or 0
    if number >= MAX_WEBHOOKS:
        raise ConflictError(f"team {team} has {number} webhooks; allowed are at most {MAX_WEBHOOKS}", field="team")
    kinds = list(dict.fromkeys(map(str, wanted.kinds)))
    row = Webhook(team=team, url=wanted.url, kinds=kinds, secret=sending.new_secret(), made_by=principal.user)
    session.add(row)
    session.flush()
    session.refresh(row)
    audit.record(session, principal, "webhook_added", row.id, team=team, url=wanted.url, kinds=kinds)
    return row


def list_all(session: Session, principal: Principal, team: str) -> Sequence[Webhook]:
    """Return a team's webhooks, oldest first.

    Raises:
        NotFoundError: no such team, or it is not the caller's to see.
    """
    teams.get_team(session, principal, team)
    return session.scalars(select(Webhook).where(Webhook.team == team).order_by(Webhook.created_at, Webhook.id)).all()


def remove(session: Session, principal: Principal, team: str, webhook_id: str) -> None:
    """Remove a webhook; what waits for it is not sent any more.

    Raises:
        NotFoundError: no such team or webhook, or it is not the caller's to see.
        ForbiddenError: the caller is no admin of the team.
    """
    require_team_admin(principal, team)
    session.delete(_get(session, team, webhook_id))
    audit.record(session, principal, "webhook_removed", webhook_id, team=team)


def test(session: Session, principal: Principal, team: str, webhook_id: str) -> Delivery:
    """Have a message sent that tells of nothing.

    Raises:
        NotFoundError: no such team or webhook, or it is not the caller's to see.
        ForbiddenError: the caller is no admin of the team.
    """
    require_team_admin(principal, team)
    _get(session, team, webhook_id)
    return session.get_one(Delivery, outbox.test(session, webhook_id))


def deliveries(session: Session, principal: Principal, team: str, webhook_id: str) -> Sequence[Delivery]:
    """Return the latest messages to a webhook, newest first.

    Raises:
        NotFoundError: no such team or webhook, or it is not the caller's to see.
    """
    teams.get_team(session, principal, team)
    _get(session, team, webhook_id)
    query = select(Delivery).where(Delivery.webhook_id == webhook_id)
    return session.scalars(query.order_by(Delivery.created_at.desc(), Delivery.id).limit(_SHOWN)).all()


def _get(session: Session, team: str, webhook_id: str) -> Webhook:
    row = session.get(Webhook, webhook_id)
    if row is None or row.team != team:
        raise NotFoundError(f"no webhook {webhook_id}", field="webhook_id")
    return row
