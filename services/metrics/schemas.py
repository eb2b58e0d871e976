"""What the API shows of measurements."""

from pydantic import Field

from xsam.services.metrics.records import AlphaRecord
from xsam.services.schemas import Read


class EpochRead(Read):
    """One finished epoch, an `EpochRecord`, with the attempt that it is of."""

    epoch: int
    """Counted from 1."""
    attempt: int
    step: int
    """Training steps done since the start of the run."""
    train_loss: float
    train_accuracy: float | None
    """Null for a task without classes."""
    eval_loss: float
    eval_accuracy: float | None
    lr: float
    epoch_s: float
    samples_per_s: float
    grad_evals: int
    """Forward-backward passes since the start of the run."""
    probe_forwards: int
    """Forward passes spent on alpha searches since the start of the run."""
    metrics: dict[str, float] = Field(default_factory=dict)
    """What the job's own task has measured besides, by name."""


class MetricsRead(Read):
    """The job's epochs, in order."""

    items: list[EpochRead]


class AlphasRead(Read):
    """The job's alpha estimates, in order."""

    items: list[AlphaRecord]
