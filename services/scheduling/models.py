"""The row that keeps the last decision for readers; written by the dispatcher that leads."""

from datetime import datetime
from typing import Any

from sqlalchemy.orm import Mapped, mapped_column

from xsam.services.db.base import Base

THE_ROW = 1


class QueueView(Base):
    """What the last decision said about the jobs it did not start. One row."""

    __tablename__ = "queue_views"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    planned_at: Mapped[datetime]
    num_queued: Mapped[int]
    line: Mapped[list[dict[str, Any]]]
    """The head of the line: `id` and reason `code`, in order."""
    positions: Mapped[dict[str, Any]]
    """The same line by job id, from 1: a reader takes one number out of it in SQL, not the whole line."""
    reasons: Mapped[dict[str, Any]]
    """By job id, for the very first jobs."""
    kinds: Mapped[dict[str, Any]]
    """By team and request, for all others: jobs of one team that ask for the same wait for the same reason."""
