"""What stands in the strip below the bar: what of the service does not work at present."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from xsam.services.cluster.models import Dispatcher
from xsam.services.cluster.service import live_dispatchers


@dataclass(frozen=True, slots=True)
class Strip:
    """One sentence about the service."""

    sentence: str
    since: datetime | None


def strips(session: Session) -> list[Strip]:
    """Return what people have to know now; empty when all is well."""
    if live_dispatchers(session):
        return []
    last = session.scalar(select(func.max(Dispatcher.seen_at)))
    return [Strip("No dispatcher answers, so Ray may be down; jobs are kept and queued", last)]
