"""The two small interfaces between the training loop and whoever runs it; the loop knows no SQL and no Ray."""

import time
from collections.abc import Callable
from typing import Protocol

from xsam.workers.messages import ProgressRecord, Report, StopReason

PROGRESS_INTERVAL_S = 0.5
"""Shortest time between two progress reports; each makes the host wait for the device once."""


class Telemetry(Protocol):
    """Takes what a run reports. Called on rank 0 only, from the training thread: it must be cheap.

    After an interruption a run goes on from its last checkpoint, so epochs and alpha estimates behind that
    point are reported again, with equal values but for the times.
    """

    def report(self, report: Report) -> None:
        """Take one report. A ProgressRecord comes at most twice a second."""


class Control(Protocol):
    """Says whether and why the run should stop, and whether the run is still wanted at all. Asked on rank 0 only."""

    def stop_reason(self) -> StopReason | None:
        """Return why the run should stop, or None; a local read, asked up to once a step."""

    def may_publish(self) -> bool:
        """Return whether this run still owns the job's folder; asked before each checkpoint is put in place.

        A process that was cut off or stopped for a while may find that another attempt has taken over.
        """


class SilentTelemetry:
    """Takes reports and drops them: the telemetry of every rank but the first."""

    def report(self, report: Report) -> None:
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
        self._telemetry.report(ProgressRecord(epoch, step, read_loss()))
