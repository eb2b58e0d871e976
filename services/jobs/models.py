"""Rows of the queue: jobs, their attempts, their events. Only `xsam.services.jobs` writes them."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from xsam.services.db.base import CHECKED_ON_POSTGRESQL, Base, BigId, new_id
from xsam.services.db.clock import db_now
from xsam.services.jobs.states import JobState

KIND_TRAINING = "training"
KIND_STUDY = "study"
"""A hyperparameter search; it holds nothing of the cluster itself."""
KIND_TRIAL = "trial"
"""A training job that a study made; it runs where its study's runner is told to run it."""
KIND_PLANE = "plane"
"""A look at the loss around another job's checkpoints."""
_STATES = ", ".join(f"'{state}'" for state in JobState)


def _list_index(order: str, *columns: str) -> Index:
    of_lists = text(f"kind = '{KIND_TRAINING}'")
    columns = (*columns, "created_at", "id")
    return Index(f"ix_jobs_list_{order}", *columns, sqlite_where=of_lists, postgresql_where=of_lists)


class Job(Base):
    """One request for work and where it stands."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(String(12), primary_key=True, default=new_id)
    kind: Mapped[str] = mapped_column(String(16), default=KIND_TRAINING)
    name: Mapped[str | None] = mapped_column(String(100))
    team: Mapped[str] = mapped_column(String(63))
    submitted_by: Mapped[str] = mapped_column(String(63))
    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    spec: Mapped[dict[str, Any]]
    labels: Mapped[dict[str, str]] = mapped_column(default=dict)
    priority: Mapped[int] = mapped_column(default=0)

    optimizer: Mapped[str | None] = mapped_column(String(64))
    """Of a training run, what its specification names; so that lists can be searched by it."""
    model: Mapped[str | None] = mapped_column(String(64))
    dataset: Mapped[str | None] = mapped_column(String(64))

    num_workers: Mapped[int]
    gpus_per_worker: Mapped[float]
    cpus_per_worker: Mapped[int]
    gpu_kind: Mapped[str | None] = mapped_column(String(63))
    """Kind that its GPUs must be of; null is any."""
    min_gpu_memory_gb: Mapped[float | None]
    """Of each of its GPUs, in 10^9 bytes."""
    node_labels: Mapped[dict[str, str] | None]
    """Labels that each of its nodes must have."""

    state: Mapped[str] = mapped_column(String(16), default=JobState.QUEUED)
    state_since: Mapped[datetime] = mapped_column(default=db_now())
    created_at: Mapped[datetime] = mapped_column(default=db_now())
    scheduled_at: Mapped[datetime] = mapped_column(default=db_now())
    """Not before this instant; a retry with backoff lies in the future."""
    started_at: Mapped[datetime | None]
    """Start of the first attempt."""
    finished_at: Mapped[datetime | None]

    attempt: Mapped[int] = mapped_column(default=0)
    """Number of the current or last attempt; 0 before the first."""
    lease_token: Mapped[str | None] = mapped_column(String(32))
    lease_expires_at: Mapped[datetime | None]
    runner: Mapped[str | None] = mapped_column(String(100))
    placement: Mapped[list[str] | None]
    """Node of each worker while running, in rank order."""
    wish: Mapped[str | None] = mapped_column(String(16))
    wish_at: Mapped[datetime | None]

    max_run_s: Mapped[float | None]
    """Running time, summed over attempts, that ends the job."""
    max_queue_s: Mapped[float | None]
    """Time in the queue, each time anew, that ends the job."""
    ran_s: Mapped[float] = mapped_column(default=0.0, server_default="0")
    """Running time of ended attempts that count against `max_run_s`."""
    deadline_at: Mapped[datetime | None]
    """When `max_run_s` or `max_queue_s` ends the present state."""
    reported_at: Mapped[datetime | None]
    """Last sign of progress of the running attempt."""
    gpu_utilization: Mapped[float | None]
    """Of all its GPUs, on average, when they were last measured, 0 to 1; null where somebody can't measure theirs."""
    gpu_used_bytes: Mapped[int | None] = mapped_column(BigId)
    gpu_total_bytes: Mapped[int | None] = mapped_column(BigId)
    gpu_seen_at: Mapped[datetime | None]
    """When that was."""
    gpu_busy_at: Mapped[datetime | None]
    """When anything last computed on one of them."""
    idle_warned_at: Mapped[datetime | None]
    """Since when the team knows that its GPUs are idle."""
    idle_requeues: Mapped[int] = mapped_column(default=0, server_default="0")
    """How many times in a row it was sent back to the queue for that, as far as is known."""
    idle_paused_at: Mapped[datetime | None]
    """When it was paused for that; null for jobs that go on, or that a person has paused."""
    budget_after: Mapped[int] = mapped_column(default=0, server_default="0")
    """Attempts up to this one were forgiven by a person's retry: retry budgets count the later ones."""

    num_epochs: Mapped[int]
    epochs_done: Mapped[int] = mapped_column(default=0)
    progress: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Live position inside an epoch: step, steps per epoch, loss."""
    summary: Mapped[dict[str, Any] | None]
    """The result, a TrainingSummary, once succeeded."""
    best_value: Mapped[float | None]
    """Of the summary: its best value, or its best accuracy."""
    grad_evals: Mapped[int | None] = mapped_column(BigId)
    """Of the summary: what the run has cost."""
    failure_kind: Mapped[str | None] = mapped_column(String(32))
    failure_message: Mapped[str | None]

    __table_args__ = (
        UniqueConstraint("team", "idempotency_key"),
        CheckConstraint(f"state IN ({_STATES})", name="state"),
        CheckConstraint("(state = 'running') = (lease_token IS NOT NULL)", name="running_has_lease"),
        # What is due, what is overdue.
        Index("ix_jobs_due", "state", "scheduled_at"),
        Index("ix_jobs_state_since", "state", "state_since"),
        Index("ix_jobs_deadline", "deadline_at"),
        # Pages of lists, in each order; jobs of other kinds are listed with their study.
        _list_index("created"),
        _list_index("team", "team"),
        _list_index("state", "state"),
        _list_index("name", "name"),
        _list_index("user", "submitted_by"),
        _list_index("best", "best_value"),
        _list_index("cost", "grad_evals"),
        # The line as the scheduler reads it, whole or owner by owner.
        Index("ix_jobs_line", "state", text("priority DESC"), "created_at", "id", info=CHECKED_ON_POSTGRESQL),
        Index(
            "ix_jobs_owner_line",
            *("state", "team", "submitted_by", text("priority DESC"), "created_at", "id"),
            info=CHECKED_ON_POSTGRESQL,
        ),
    )


class JobAttempt(Base):
    """One run of a job, from claim to end."""

    __tablename__ = "job_attempts"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    runner: Mapped[str] = mapped_column(String(100))
    started_at: Mapped[datetime] = mapped_column(default=db_now())
    first_step_at: Mapped[datetime | None]
    """When the first training step of the attempt had finished."""
    finished_at: Mapped[datetime | None]
    outcome: Mapped[str | None] = mapped_column(String(32))
    """`succeeded`, or the kind of failure."""
    message: Mapped[str | None]
    traceback: Mapped[str | None]
    environment: Mapped[dict[str, str] | None]
    """Versions and hardware of rank 0."""
    placement: Mapped[list[str] | None]
    """Node of each worker, in rank order; null in attempts of earlier releases."""

    __table_args__ = (Index("ix_job_attempts_finished", "finished_at"),)


class JobEvent(Base):
    """Something that happened to a job, in order; never changed once written."""

    __tablename__ = "job_events"

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    at: Mapped[datetime] = mapped_column(default=db_now())
    kind: Mapped[str] = mapped_column(String(32))
    actor: Mapped[str] = mapped_column(String(100))
    message: Mapped[str]
    data: Mapped[dict[str, Any]] = mapped_column(default=dict)

    __table_args__ = (Index("ix_job_events_job", "job_id", "id"),)
