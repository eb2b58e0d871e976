"""The result of a training run, one value from the loop that makes it to the document that shows it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class TrainingSummary:
    """What a finished (or stopped) run amounts to; every field is derived from the whole run, resumes included."""

    # Read by pydantic where this is part of an answer; ranks make it without.
    __pydantic_config__: ClassVar[Any] = {"use_attribute_docstrings": True}

    epochs: int
    step: int
    """Training steps of the whole run."""
    best_epoch: int
    best_accuracy: float | None
    """Highest evaluation accuracy of any epoch, a share in [0, 1]; null for a task without classes."""
    final_accuracy: float | None
    final_eval_loss: float
    train_s: float
    """Seconds spent in epochs, over all attempts."""
    grad_evals: int
    """Forward-backward passes."""
    probe_forwards: int
    """Forward passes spent on alpha searches."""
    mean_alpha: float | None
    """Mean of the searched (or the fixed) alpha; null for optimizers without one."""
    best_metric: str = "accuracy:max"
    """What makes an epoch the best one."""
    best_value: float | None = None
    """That metric in the best epoch."""
    final_metrics: Mapping[str, float] = field(default_factory=dict)
    """What the last epoch has measured of a task of the job's own."""
    data_wait_s: float | None = None
    """Of `train_s`, how long the first worker's steps waited for their batches; null for a script."""
