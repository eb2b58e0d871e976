"""What the API shows of checks."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from xsam.services.schemas import Read


class CheckAnswer(Read):
    """What came of a check."""

    error: str | None = None
    """Why the job could not train; null if it could."""
    traceback: str | None = None
    """Of the error, cut to the job's own files."""
    num_parameters: int | None = None
    num_trainable: int | None = None
    steps_per_epoch: int | None = None
    batch: str | None = None
    """Shapes of one rank's first batch."""
    loss: float | None = None
    """Of the first batch."""
    metrics: list[str] = Field(default_factory=list)
    """Names of what evaluation measures."""
    best: str | None = None
    """What makes an epoch the best one."""
    notes: list[str] = Field(default_factory=list)
    """What is replaced of a project that is taken as it is."""


class CheckRead(Read):
    """A check and its answer, once there is one."""

    id: str
    state: Literal["queued", "running", "done"]
    answer: CheckAnswer | None
    created_at: datetime
