"""The two small interfaces between the training loop and whoever runs it; the loop knows no SQL and no Ray."""

import time
from collections.abc import Callable
from typing import Protocol

from xsam.services.metrics.records import AlphaRecord, CheckpointRecord, EpochRecord

PROGRESS_INTERVAL_S = 0.5
"""Shortest time between two progress reports; each makes the host wait for the device once."""


class Telemetry(Protocol):
    """Takes what a run reports. Called on rank 0 only, from the training thread: it must be cheap.

    After an interruption a run goes on from its last checkpoint, so epochs and alpha estimates behind that
    point are reported again, with equal values but for the times.
    """

    def started(self, *, steps_per_epoch: int, first_step: int, first_epoch: int, num_parameters: int) -> None:
        """Everything is built and, where there was a checkpoint, restored; the first step comes next.

        `first_step` counts from 1 over the whole run, `first_epoch` likewise.
        """

    def first_step(self) -> None:
        """The first optimizer step of this attempt has finished."""

    def progress(self, *, epoch: int, step: int, loss: float) -> None:
        """At most twice a second; `loss` is rank 0's mean since the last report, `epoch` the running one from 1."""

    def epoch(self, record: EpochRecord) -> None:
        """An epoch was trained and evaluated."""

    def alpha(self, record: AlphaRecord) -> None:
        """The optimizer searched for alpha*."""

    def checkpoint(self, record: CheckpointRecord) -> None:
        """A checkpoint lies complete on the storage."""


class Control(Protocol):
    """Says what somebody outside wishes, and whether the run is still wanted at all. Asked on rank 0 only."""

    def wish(self) -> str | None:
        """Return "cancel", "preempt", "pause" or None; a local read, asked up to once a step."""

    def may_publish(self) -> bool:
        """Return whether this run still owns the job's folder; asked before each checkpoint is put in place.

        A process that was cut off or stopped for a while may find that another attempt has taken over.
        """


class SilentTelemetry:
    """Takes reports and drops them: the telemetry of every rank but the first."""

    def started(self, *, steps_per_epoch: int, first_step: int, first_epoch: int, num_parameters: int) -> None:
        """Drop the report."""

    def first_step(self) -> None:
        """Drop the report."""

    def progress(self, *, epoch: int, step: int, loss: float) -> None:
        """Drop the report."""

    def epoch(self, record: EpochRecord) -> None:
        """Drop the report."""

    def alpha(self, record: AlphaRecord) -> None:
        """Drop the report."""

    def checkpoint(self, record: CheckpointRecord) -> None:
        """Drop the report."""


class ProgressThrottle:
    """Lets a progress report through at most twice a second, and reads the loss only then."""

    def __init__(self, telemetry: Telemetry, *, is_silent: bool) -> None:
        self._telemetry = telemetry
        self._is_silent = is_silent
        self._next_at = 0.0

    def report(self, *, epoch: int, step: int, read_loss: Callable[[], float]) -> None:
        """Report if it is time; `read_loss` may wait for the device."""
        if self._is_silent or time.monotonic() < self._next_at:
            return
        self._next_at = time.monotonic() + PROGRESS_INTERVAL_S
        self._telemetry.progress(epoch=epoch, step=step, loss=read_loss())
