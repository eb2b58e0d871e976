"""Rows of studies and their trials, each beside a row of `jobs` that holds its state, lease, times and result."""

from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from xsam.services.db.base import Base, BigId, OrderedJsonColumn


class Study(Base):
    """What a study has been told since its submit, and who runs it; its job's `spec` holds the StudySpec."""

    __tablename__ = "studies"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    num_configs: Mapped[int]
    """Configurations of the main search, extensions included."""
    space: Mapped[dict[str, Any]] = mapped_column(OrderedJsonColumn)
    """The space in force: the specification's, or a wider one; axes in the order in which they were given."""
    concurrency: Mapped[int]
    hold: Mapped[str | None] = mapped_column(String(8))
    """`pause`: no new trials until resumed. `stop`: no new trials any more."""
    revision: Mapped[int] = mapped_column(default=0)
    """Grows whenever `num_configs` or `space` changes."""
    runner_name: Mapped[str | None] = mapped_column(String(100))
    """Name of the Ray actor that runs the study and takes its trials."""

    __table_args__ = (CheckConstraint("hold IN ('pause', 'stop')", name="hold"),)


class Trial(Base):
    """One trial: which point, which seed, what came of it."""

    __tablename__ = "trials"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    study_id: Mapped[str] = mapped_column(ForeignKey("studies.job_id", ondelete="CASCADE"))
    number: Mapped[int]
    """Counted from 1 in the study, in the order of their making."""
    arm: Mapped[str] = mapped_column(String(32))
    phase: Mapped[str] = mapped_column(String(8))
    """`search`, or `confirm`: the arm's best configuration on seeds the search has not seen."""
    config: Mapped[int]
    """Number of the configuration in its arm, from 0; its trials differ in the seed only."""
    seed: Mapped[int] = mapped_column(BigId)
    params: Mapped[dict[str, Any]]
    """The point of the space: a value for each axis, a factor for a ratio."""
    planned_grad_evals: Mapped[int | None] = mapped_column(BigId)
    """Of a whole run; None where only the data's files can tell."""
    value: Mapped[float | None]
    """The objective, once the trial has ended."""
    grad_evals: Mapped[int | None] = mapped_column(BigId)
    is_stopped_early: Mapped[bool] = mapped_column(default=False)

    __table_args__ = (
        UniqueConstraint("study_id", "number"),
        CheckConstraint("phase IN ('search', 'confirm')", name="phase"),
        Index("ix_trials_study_value", "study_id", "value"),
    )
