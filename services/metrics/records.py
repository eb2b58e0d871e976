"""What a training run reports, as plain values: made in the loop, stored by `xsam.services.metrics.service`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One finished epoch. Losses are means over examples; accuracies are shares in [0, 1], None without classes."""

    epoch: int
    """Counted from 1."""
    step: int
    """Training steps done since the start of the run."""
    train_loss: float
    train_accuracy: float | None
    eval_loss: float
    eval_accuracy: float | None
    lr: float
    """Learning rate of the first parameter group at the epoch's last step."""
    epoch_s: float
    samples_per_s: float
    """Training examples per second over all ranks, evaluation left out."""
    grad_evals: int
    """Forward-backward passes since the start of the run (one per rank and pass counts once)."""
    probe_forwards: int
    """Forward passes spent on alpha searches since the start of the run."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """What a task of its own has measured besides, by name; of training as `train/NAME`."""

    def value(self, name: str) -> float | None:
        """Return a metric by name, a field's or the task's own; None where the epoch has no such metric.

        `loss` and `accuracy` are those of evaluation.
        """
        if name in self.metrics:
            return self.metrics[name]
        return getattr(self, FIELDS[name]) if name in FIELDS else None


FIELDS = {
    "loss": "eval_loss",
    "accuracy": "eval_accuracy",
    "eval_loss": "eval_loss",
    "eval_accuracy": "eval_accuracy",
    "train_loss": "train_loss",
    "train_accuracy": "train_accuracy",
}
"""Metrics that every epoch has a field for, by the names they may be called."""


VALIDATION = ("validation/accuracy", "validation/loss")
"""Metrics of a dataset's held-out training examples, where the job holds some out."""


@dataclass(frozen=True, slots=True)
class AlphaRecord:
    """One search for alpha*: the probe curve L(theta_0 + rho_max v(alpha)) and its maximum."""

    # Read by pydantic where this is part of an answer; ranks make it without.
    __pydantic_config__: ClassVar[Any] = {"use_attribute_docstrings": True}

    epoch: int
    step: int
    """The training step that searched, counted from 1 since the start of the run."""
    alpha: float
    angle_rad: float
    """Angle between v0 and v1."""
    alphas: tuple[float, ...]
    losses: tuple[float, ...]
    """Mean over ranks, one per entry of `alphas`."""


@dataclass(frozen=True, slots=True)
class PlaneRecord:
    """The losses on a plane around one checkpoint, as far as they are known; None where one is not finite."""

    checkpoint: str
    """Folder name below the folder of the job that is looked at."""
    epoch: int
    """Finished epochs it holds."""
    step: int
    losses: tuple[tuple[float | None, ...], ...]
    """Finished rows of the grid, from the lowest y on."""
    found: Mapping[str, Any] | None = None
    """The other fields of `xsam_core.LossPlane`, and its highest point; None before the last row."""


@dataclass(frozen=True, slots=True)
class CheckpointRecord:
    """A checkpoint that lies complete and verified in the artifact store."""

    epoch: int
    """Finished epochs it holds."""
    step: int
    name: str
    """Folder name below the job's checkpoint folder."""
    size_bytes: int
    sha256: str
    """Digest of its manifest, which holds the digest of every file."""
    is_best: bool
