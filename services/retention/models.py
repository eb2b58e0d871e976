"""Rows about what ended jobs have in the artifact store, what of it is gone, and how full the store is."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from xsam.services.db.base import Base, BigId


class StoredFiles(Base):
    """What a job's folder held when it was measured, and since when parts of it are gone for good."""

    __tablename__ = "stored_files"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    checkpoint_bytes: Mapped[int] = mapped_column(BigId)
    weights_bytes: Mapped[int] = mapped_column(BigId)
    log_bytes: Mapped[int] = mapped_column(BigId)
    """What was printed, and everything else."""
    measured_at: Mapped[datetime]
    checkpoints_gone_at: Mapped[datetime | None]
    """Written before the files go; a job that was retried meanwhile has it taken back."""
    weights_gone_at: Mapped[datetime | None]
    logs_gone_at: Mapped[datetime | None]
    metrics_thinned_at: Mapped[datetime | None]


class StoreFill(Base):
    """How full the disk of an artifact store was, and who has how much on it; replaced every minute."""

    __tablename__ = "store_fills"

    root: Mapped[str] = mapped_column(primary_key=True)
    total_bytes: Mapped[int] = mapped_column(BigId)
    free_bytes: Mapped[int] = mapped_column(BigId)
    measured_at: Mapped[datetime]
    teams: Mapped[dict[str, Any]]
    """Bytes by kind of every team: `{"vision": {"weights": 1024}}`."""
