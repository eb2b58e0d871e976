"""Rows of what runs measured: epochs, alpha estimates, and losses around checkpoints."""

from typing import Any

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from xsam.services.db.base import Base, JsonColumn


class EpochMetric(Base):
    """One epoch of a job; a resumed attempt that repeats an epoch replaces its row."""

    __tablename__ = "epoch_metrics"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True)
    attempt: Mapped[int]
    step: Mapped[int]
    train_loss: Mapped[float]
    train_accuracy: Mapped[float | None]
    eval_loss: Mapped[float]
    eval_accuracy: Mapped[float | None]
    lr: Mapped[float]
    epoch_s: Mapped[float]
    samples_per_s: Mapped[float]
    grad_evals: Mapped[int]
    probe_forwards: Mapped[int]


class NamedMetric(Base):
    """One value that a task of its own has measured of an epoch."""

    __tablename__ = "named_metrics"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[float]


class AlphaEstimate(Base):
    """One search for alpha*, with the curve it saw."""

    __tablename__ = "alpha_estimates"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    epoch: Mapped[int]
    alpha: Mapped[float]
    angle_rad: Mapped[float]
    alphas: Mapped[list[float]]
    losses: Mapped[list[float]]


class LossPlane(Base):
    """Losses around one checkpoint of another job, as far as a job has come with them."""

    __tablename__ = "loss_planes"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    checkpoint: Mapped[str] = mapped_column(String(100), primary_key=True)
    epoch: Mapped[int]
    step: Mapped[int]
    losses: Mapped[list[list[float | None]]] = mapped_column(JsonColumn)
    found: Mapped[dict[str, Any] | None]
    """Axes, vectors and losses on the circle, once all rows are there."""
