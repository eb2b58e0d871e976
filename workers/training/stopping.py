"""How ranks decide together, at the same step, whether to stop: for a reason from outside or on a bad loss."""

import time
from collections.abc import Callable

from xsam.workers.messages import StopReason
from xsam.workers.training.ranks import Ranks, mirrored
from xsam.workers.training.telemetry import Control

TARGET_INTERVAL_S = 0.3
"""Time between two meetings of the ranks: short enough to stop fast, long enough to cost nothing."""
_REASONS = (None, *StopReason)


class StopSignal:
    """Is checked after every unit of work of one kind (training steps, or evaluation batches).

    A single rank asks for a reason at every check and looks at the losses now and then. Several ranks meet only at some
    checks: the same small all-reduce that carries the reason also carries how many to skip until the next meeting,
    which rank 0 derives from the pace so far. So all ranks stop at the same check, and short steps don't pay for it.

    Args:
        ranks: the collectives.
        control: asked on rank 0 only.
        first_bad: returns the step, from 1, whose loss was bad since the last call, or 0; may wait for the device.
    """

    def __init__(self, ranks: Ranks, control: Control, first_bad: Callable[[], int]) -> None:
        self._ranks = ranks
        self._control = control
        self._first_bad = first_bad
        self._next_check_at = 0.0
        self._interval = 1
        self._checks_left = 1
        self._unit_s: float | None = None
        self._busy_s = 0.0
        self._last_at = time.monotonic()

    def start(self) -> None:
        """Start the clock for a stretch of work: time between stretches is not the work's."""
        self._last_at = time.monotonic()

    def check(self) -> tuple[StopReason | None, int]:
        """Return the reason to stop, if any, and the step of a bad loss or 0; both are the same on every rank."""
        if self._ranks.world_size == 1:
            return self._control.stop_reason(), self._own_first_bad()
        self._checks_left -= 1
        if self._checks_left > 0:
            return None, 0
        return self._meet()

    def _own_first_bad(self) -> int:
        now = time.monotonic()
        if now < self._next_check_at:
            return 0
        self._next_check_at = now + TARGET_INTERVAL_S
        return self._first_bad()

    def _meet(self) -> tuple[StopReason | None, int]:
        is_first = self._ranks.is_first
        reason = _REASONS.index(self._control.stop_reason()) if is_first else 0
        # Rank 0's proposal is the maximum, since the others propose nothing.
        proposal = self._next_interval() if is_first else 0
        reason, proposal, bad_step = self._ranks.maxima(reason, proposal, mirrored(self._first_bad()))
        now = time.monotonic()
        self._unit_s = (self._busy_s + now - self._last_at) / self._interval
        self._busy_s, self._last_at = 0.0, now
        self._interval = self._checks_left = proposal
        return _REASONS[reason], mirrored(bad_step)

    def pause(self) -> None:
        """Stop the clock until `start`."""
        self._busy_s += time.monotonic() - self._last_at

    def _next_interval(self) -> int:
        if self._unit_s is None:
            return 1
        wanted = int(TARGET_INTERVAL_S / max(self._unit_s, 1e-6))
        # Doubling at most: the first steps of a run say little about the pace.
        return max(1, min(wanted, 2 * self._interval))
