"""Where the threads of a study's runner meet: trials hand in epochs, Tune's relays fetch them and bring verdicts."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from xsam.services.metrics.records import EpochRecord

WAIT_S = 0.5
"""Longest wait before a waiter looks whether its own reason to wait has gone."""
RELAY_STARTS_WITHIN_S = 30.0
"""After that nobody waits for a relay any more, be it to start or to take a trial."""


@dataclass(slots=True)
class _Entry:
    epochs: list[EpochRecord]
    num_judged: int
    """Epochs with a verdict, or replayed ones, which must not get another."""
    is_stopped: bool = False
    is_over: bool = False
    is_given: bool = False
    """Tune has been given it."""
    is_back: bool = False
    """A relay has got its end, so Tune has seen it or will in a moment."""
    held_since: float | None = None
    """Since when its end is held back; None while it is not."""
    relay_due_at: float | None = None
    """Until when a relay is expected that has not come yet; None where none is."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a relay gets: an epoch to be judged, or the news that the trial is over."""

    epoch: int
    is_over: bool


@dataclass(slots=True)
class Desk:
    """Thread-safe.

    Args:
        is_judged: whether relays get every epoch; otherwise only the end of a trial.
    """

    is_judged: bool
    _entries: dict[str, _Entry] = field(default_factory=dict)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _is_closed: bool = False
    _num_free_relays: int = 0

    def open(self, trial_id: str, epochs: Sequence[EpochRecord] = ()) -> None:
        """Begin a trial, or take one up again that has measured these epochs already."""
        with self._changed:
            self._entries.setdefault(trial_id, _Entry(list(epochs), len(epochs)))

    def report(self, trial_id: str, record: EpochRecord) -> None:
        """Take an epoch; one that a resumed attempt repeats replaces nothing, since its values are equal."""
        with self._changed:
            entry = self._entries.get(trial_id)
            if entry is not None and record.epoch > len(entry.epochs):
                entry.epochs.append(record)
                self._changed.notify_all()

    def finish(self, trial_id: str) -> None:
        """Note that a trial has ended."""
        with self._changed:
            if trial_id in self._entries:
                self._entries[trial_id].is_over = True
                self._changed.notify_all()

    def reopen(self, trial_id: str) -> None:
        """Take up a trial again that had ended."""
        with self._changed:
            if trial_id in self._entries:
                entry = self._entries[trial_id]
                entry.is_over = entry.is_given = entry.is_back = False

    def expect_relay(self, trial_id: str) -> None:
        """Note that Tune has the trial and a relay will ask for it, perhaps after it has started."""
        with self._changed:
            if trial_id in self._entries:
                self._entries[trial_id].is_given = True
                self._entries[trial_id].relay_due_at = time.monotonic() + RELAY_STARTS_WITHIN_S
                self._num_free_relays = max(0, self._num_free_relays - 1)

    def epochs(self, trial_id: str) -> Sequence[EpochRecord]:
        """Return the trial's epochs so far."""
        with self._changed:
            entry = self._entries.get(trial_id)
            return [] if entry is None else list(entry.epochs)

    def next_delivery(self, trial_id: str) -> Delivery:
        """Wait for the next epoch that has no verdict, or for the trial's end.

        An epoch is delivered again until it is judged: a relay may die with one in its hands.

        The end is held back in two cases, since Tune ends relays that it does not need at once and a new one takes
        seconds to start: while another relay starts, which Tune would replace by this one, and while one is free
        already and a trial is there for it, because Tune keeps one only.
        """
        with self._changed:
            while True:
                entry = self._entries.get(trial_id)
                if entry is None or self._is_closed:
                    return Delivery(0 if entry is None else len(entry.epochs), is_over=True)
                if entry.relay_due_at is not None:
                    entry.relay_due_at = None
                    self._changed.notify_all()
                if entry.is_over and not self._is_held_back(entry):
                    self._num_free_relays += 1
                    entry.is_back = True
                    return Delivery(len(entry.epochs), is_over=True)
                if not entry.is_over and self.is_judged and entry.num_judged < len(entry.epochs):
                    return Delivery(entry.num_judged + 1, is_over=False)
                self._changed.wait(WAIT_S)

    def _is_held_back(self, entry: _Entry) -> bool:
        now = time.monotonic()
        if any(e.relay_due_at is not None and now < e.relay_due_at for e in self._entries.values()):
            return True
        if not self._has_relay_to_give():
            return False
        if entry.held_since is None:
            entry.held_since = now
        return now < entry.held_since + RELAY_STARTS_WITHIN_S

    def _has_relay_to_give(self) -> bool:
        """Return whether a relay is free and the next trial its own: Tune is given no more trials than are live."""
        live = [entry for entry in self._entries.values() if not entry.is_over]
        num_given = sum(entry.is_given and not entry.is_back for entry in self._entries.values())
        return self._num_free_relays > 0 and num_given < len(live) and any(not entry.is_given for entry in live)

    def judge(self, trial_id: str, epoch: int, *, is_stopped: bool) -> None:
        """Bring the verdict on an epoch."""
        with self._changed:
            entry = self._entries.get(trial_id)
            if entry is not None:
                entry.num_judged = max(entry.num_judged, epoch)
                entry.is_stopped = entry.is_stopped or is_stopped
                self._changed.notify_all()

    def wait_for_verdict(self, trial_id: str, epoch: int) -> bool | None:
        """Return whether the trial ends after this epoch; None where the verdict has not come within a moment."""
        with self._changed:
            entry = self._entries.get(trial_id)
            if entry is None or self._is_closed:
                return False
            if entry.num_judged < epoch and not entry.is_stopped:
                self._changed.wait(WAIT_S)
            if entry.is_stopped:
                return True
            return False if entry.num_judged >= epoch else None

    def is_stopped(self, trial_id: str) -> bool:
        """Return whether a verdict has ended the trial."""
        with self._changed:
            entry = self._entries.get(trial_id)
            return entry is not None and entry.is_stopped

    def close(self) -> None:
        """Let everybody go who waits."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
