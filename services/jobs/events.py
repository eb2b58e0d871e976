"""A job's history: what happened, when, by whom."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from xsam.services.jobs.models import JobEvent
from xsam.services.teams.roles import SYSTEM

_INSERT: Any = insert(JobEvent.__table__)  # type: ignore[arg-type]


def record(
    session: Session, job_id: str, kind: str, message: str, *, actor: str = SYSTEM, data: dict[str, Any] | None = None
) -> None:
    """Append an event in the caller's transaction."""
    session.flush()  # its job may be new
    session.execute(_INSERT, {"job_id": job_id, "kind": kind, "message": message, "actor": actor, "data": data or {}})


def newest(session: Session) -> int:
    """Return the id of the newest event of any job; as long as it stays, nothing has happened to any of them."""
    return session.scalar(select(func.max(JobEvent.id))) or 0


def list_events(session: Session, job_id: str, *, after: int = 0, limit: int = 500) -> Sequence[JobEvent]:
    """Return the job's events with an id above `after`, oldest first."""
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.id > after).order_by(JobEvent.id).limit(limit)
    return session.scalars(query).all()
