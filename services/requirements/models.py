"""Rows of requirements that teams have asked to lock: every package a job needs beyond the service's environment."""

from datetime import datetime

from sqlalchemy import Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from xsam.services.db.base import Base, new_id
from xsam.services.db.clock import db_now

QUEUED, RUNNING, DONE = "queued", "running", "done"


class RequirementsLock(Base):
    """Requirements as somebody wrote them, and the lock that the leading dispatcher made of them; it never changes."""

    __tablename__ = "requirements_locks"

    id: Mapped[str] = mapped_column(String(12), primary_key=True, default=new_id)
    team: Mapped[str]
    made_by: Mapped[str]
    requirements: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16), default=QUEUED)
    lock_id: Mapped[str | None] = mapped_column(String(71))
    """`sha256:...` of the lock; jobs name it."""
    lock: Mapped[str | None] = mapped_column(Text)
    """A line for each package: name, version, hashes."""
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default=db_now())

    __table_args__ = (
        Index("ix_requirements_locks_team", "team", "lock_id"),
        Index("ix_requirements_locks_state", "state", "created_at"),
    )
