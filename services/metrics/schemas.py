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
    trained_s: float = 0.0
    """Seconds of training until the end of this epoch, those of all epochs before it too."""
    metrics: dict[str, float] = Field(default_factory=dict)
    """What the job's own task has measured besides, by name."""


class MetricsRead(Read):
    """The job's epochs, in order."""

    items: list[EpochRead]


class JobMetrics(Read):
    """One of several jobs' epochs."""

    job_id: str
    items: list[EpochRead]


class SeveralMetrics(Read):
    """Several jobs' epochs, in the order in which they were asked for."""

    items: list[JobMetrics]


class AlphaColumn(Read):
    """Some searches that follow each other, as one column of a map."""

    step: int
    """Of the first of them."""
    epoch: int
    num: int
    """How many searches."""
    alpha: float
    """Mean of what they found."""
    angle_rad: float
    """Mean angle of the two directions that they searched between."""
    losses: list[float | None]
    """For each alpha of the map: how far the loss is above the curve's own lowest, on average; null where no curve
    reaches."""


class AlphaMap(Read):
    """All probe curves of a job on one grid, for a heat map."""

    alphas: list[float]
    columns: list[AlphaColumn]
    num_searches: int
    low_edge_share: float | None
    """Share of the searches that found the lowest alpha of their grid; null without searches."""
    high_edge_share: float | None
    """Share of the searches that found the highest: where it is large, the range is too narrow."""


class AlphasRead(Read):
    """The job's alpha estimates, in order."""

    items: list[AlphaRecord]
