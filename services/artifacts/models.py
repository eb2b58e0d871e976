"""Rows of what lies in the artifact store; the bytes are files below its root."""

from datetime import datetime

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from xsam.services.db.base import Base, BigId
from xsam.services.db.clock import db_now


class Checkpoint(Base):
    """A complete checkpoint of a job; deleted together with its folder."""

    __tablename__ = "checkpoints"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    epoch: Mapped[int]
    step: Mapped[int]
    size_bytes: Mapped[int] = mapped_column(BigId)
    sha256: Mapped[str] = mapped_column(String(64))
    is_best: Mapped[bool]
    created_at: Mapped[datetime] = mapped_column(default=db_now())
