"""Rows of lab runs: one figure of the paper, made from the service's own jobs."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from xsam.services.db.base import Base, new_id
from xsam.services.db.clock import db_now

RUNNING, SUCCEEDED, FAILED, CANCELLED = "running", "succeeded", "failed", "cancelled"


class LabRun(Base):
    """One run of a figure, from its submit to its verdict. The leading dispatcher takes it from stage to stage."""

    __tablename__ = "lab_runs"

    id: Mapped[str] = mapped_column(String(12), primary_key=True, default=new_id)
    team: Mapped[str] = mapped_column(String(63))
    submitted_by: Mapped[str] = mapped_column(String(63))
    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    figure: Mapped[str] = mapped_column(String(16))
    scale: Mapped[str] = mapped_column(String(16))
    spec: Mapped[dict[str, Any]]
    """As it was asked for."""
    stages: Mapped[list[dict[str, Any]]]
    """What it queues, as planned at the submit: a later release changes nothing of it."""
    work: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """By stage: the job or study that it became, its state, or what was computed."""
    state: Mapped[str] = mapped_column(String(16), default=RUNNING)
    failure: Mapped[str | None]
    verdict: Mapped[str | None] = mapped_column(String(16))
    finding: Mapped[dict[str, Any] | None]
    """Verdict, caption, picture and table."""
    created_at: Mapped[datetime] = mapped_column(default=db_now())
    finished_at: Mapped[datetime | None]

    __table_args__ = (
        UniqueConstraint("team", "idempotency_key"),
        CheckConstraint("state IN ('running', 'succeeded', 'failed', 'cancelled')", name="state"),
        Index("ix_lab_runs_state", "state"),
        Index("ix_lab_runs_created", "created_at", "id"),
    )

    def end(self, state: str, failure: str | None = None) -> None:
        """Note that the run has ended."""
        self.state, self.failure = state, failure
        self.finished_at = db_now()

    def take_up(self) -> None:
        """Note that the run goes on."""
        self.state, self.failure, self.finished_at = RUNNING, None, None
