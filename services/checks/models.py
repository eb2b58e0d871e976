"""Rows of checks: a job's code that is tried before the job is queued."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from xsam.services.db.base import Base, new_id
from xsam.services.db.clock import db_now

QUEUED, RUNNING, DONE = "queued", "running", "done"


class CodeCheck(Base):
    """One check, from the question to the answer; forgotten after a day."""

    __tablename__ = "code_checks"

    id: Mapped[str] = mapped_column(String(12), primary_key=True, default=new_id)
    team: Mapped[str]
    made_by: Mapped[str]
    spec: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(String(16), default=QUEUED)
    answer: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime] = mapped_column(default=db_now())

    __table_args__ = (Index("ix_code_checks_state", "state", "created_at"),)
