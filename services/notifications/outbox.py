"""Messages that wait to be sent: written in the transaction that they tell of, so that none is lost or made up."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from xsam.services.db.base import new_id
from xsam.services.db.clock import db_now, utc_now
from xsam.services.notifications.models import Delivery, Webhook

BACKOFF_S = (5.0, 30.0, 120.0, 600.0, 3600.0, 3 * 3600.0, 6 * 3600.0, 12 * 3600.0, 24 * 3600.0)
"""Pauses between tries; after the last one a message is given up, two days after it was written."""
KEPT_S = 7 * 86_400.0
_MAX_ERROR = 300


@dataclass(frozen=True, slots=True)
class Ended:
    """A job or study, as the message tells it that it has ended, or that its GPUs are idle."""

    id: str
    kind: str
    """`job` or `study`."""
    team: str
    name: str | None
    submitted_by: str
    state: str
    failure_kind: str | None = None
    failure_message: str | None = None
    best_value: float | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """What is to be sent, and where."""

    id: str
    url: str
    secret: str
    payload: dict[str, Any]
    num_tries: int


def tell(session: Session, ended: Sequence[Ended], *, event: str | None = None) -> None:
    """Write a message to each webhook that wants to hear of these, in the caller's transaction.

    Args:
        session: of the caller.
        ended: what it is about.
        event: what has happened; by default that they have ended.
    """
    teams = {one.team for one in ended}
    if not teams:
        return
    hooks = session.execute(select(Webhook.id, Webhook.team, Webhook.kinds).where(Webhook.team.in_(teams))).all()
    rows = [
        _row(hook.id, event or f"{one.kind}.{one.state}", asdict(one))
        for one in ended
        for hook in hooks
        if hook.team == one.team and one.kind in hook.kinds
    ]
    if rows:
        session.execute(insert(Delivery), rows)


def test(session: Session, webhook_id: str) -> str:
    """Write a message that tells of nothing; return its id."""
    row = _row(webhook_id, "webhook.test", {})
    session.execute(insert(Delivery), [row])
    return str(row["id"])


def due(session: Session, *, limit: int) -> Sequence[Message]:
    """Return what is to be tried now, what waits longest first."""
    query = (
        select(Delivery.id, Webhook.url, Webhook.secret, Delivery.payload, Delivery.num_tries)
        .join(Webhook, Webhook.id == Delivery.webhook_id)
        .where(Delivery.next_at <= db_now())
        .order_by(Delivery.next_at)
        .limit(limit)
    )
    return [Message(*row) for row in session.execute(query)]


def newest(session: Session, webhook_ids: Sequence[str]) -> dict[str, Delivery]:
    """Return the latest message to each webhook that has had any."""
    query = select(Delivery).order_by(Delivery.created_at.desc()).limit(1)
    found = (session.scalar(query.where(Delivery.webhook_id == webhook_id)) for webhook_id in webhook_ids)
    return {row.webhook_id: row for row in found if row is not None}


def note_delivered(session: Session, message_id: str) -> None:
    """Note that a message has arrived."""
    statement = update(Delivery).where(Delivery.id == message_id)
    session.execute(statement.values(delivered_at=db_now(), next_at=None, num_tries=Delivery.num_tries + 1, error=None))


def note_failed(session: Session, message: Message, error: str) -> None:
    """Note that a message did not arrive; it is tried again later, or given up."""
    tries = message.num_tries
    later = db_now(BACKOFF_S[tries]) if tries < len(BACKOFF_S) else None
    statement = update(Delivery).where(Delivery.id == message.id, Delivery.num_tries == tries)
    session.execute(statement.values(next_at=later, num_tries=tries + 1, error=error[:_MAX_ERROR]))


def forget_old(session: Session) -> None:
    """Delete messages that arrived, or were given up, a week ago."""
    session.execute(delete(Delivery).where(Delivery.next_at.is_(None), Delivery.created_at < db_now(-KEPT_S)))


def _row(webhook_id: str, event: str, data: dict[str, Any]) -> dict[str, Any]:
    payload = {"type": event, "timestamp": utc_now().isoformat(), "data": data}
    return {"id": new_id(), "webhook_id": webhook_id, "payload": payload}
