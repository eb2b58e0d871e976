import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.workers.training.runs import WishAfter, context_in
from xsam.workers.messages import StopReason
from xsam.workers.training import stopping as stopping_module
from xsam.workers.training.ranks import Ranks, mirrored
from xsam.workers.training.stopping import StopSignal


class TwoRanks(Ranks):
    """Rank 0's collectives as they are when rank 1 reports `other_bad` and proposes nothing."""

    def __init__(self, other_bad: int = 0) -> None:
        super().__init__(context_in(Path("unused")))
        self.world_size = 2
        self.num_meetings = 0
        self._other_bad = other_bad

    def maxima(self, *values: int) -> list[int]:
        self.num_meetings += 1
        return [max(own, other) for own, other in zip(values, (0, 0, mirrored(self._other_bad)), strict=True)]


class Clock:
    """Time that passes only when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(stopping_module, "time", clock)
    return clock


def signal_of(ranks: Ranks, control: WishAfter, first_bad: Any = lambda: 0) -> StopSignal:
    return StopSignal(ranks, control, first_bad)


def test_one_rank__asks_at_every_check(clock: Clock) -> None:
    control = WishAfter(StopReason.PAUSE, after=3)
    stop_signal = signal_of(Ranks(context_in(Path("unused"))), control)
    assert [stop_signal.check()[0] for _ in range(4)] == [None, None, "pause", "pause"]


def test_one_rank__does_not_look_at_the_losses_at_every_check(clock: Clock) -> None:
    checks = []
    stop_signal = signal_of(Ranks(context_in(Path("unused"))), WishAfter(), lambda: checks.append(clock.now) or 0)
    for _ in range(100):
        clock.now += 0.01
        stop_signal.check()
    assert len(checks) == pytest.approx(1.0 / stopping_module.TARGET_INTERVAL_S, abs=1)


@pytest.mark.parametrize("unit_s", [0.0001, 0.01, 0.1, 2.0])
def test_two_ranks__meet_about_every_interval_whatever_a_step_takes(unit_s: float, clock: Clock) -> None:
    ranks = TwoRanks()
    stop_signal = signal_of(ranks, WishAfter())
    meetings = []
    for _ in range(int(30 / unit_s)):
        clock.now += unit_s
        before = ranks.num_meetings
        stop_signal.check()
        if ranks.num_meetings > before:
            meetings.append(clock.now)
    gaps = [later - earlier for earlier, later in itertools.pairwise(meetings)]
    assert max(gaps) <= max(stopping_module.TARGET_INTERVAL_S, unit_s) * 1.01
    assert sum(gaps[-5:]) / 5 >= max(stopping_module.TARGET_INTERVAL_S / 2, unit_s) * 0.99


def test_two_ranks__do_not_count_the_time_between_stretches(clock: Clock) -> None:
    ranks = TwoRanks()
    stop_signal = signal_of(ranks, WishAfter())
    for _ in range(100):
        stop_signal.start()
        for _ in range(10):
            clock.now += 0.01
            stop_signal.check()
        stop_signal.pause()
        clock.now += 50.0
    # 1,000 checks of 10 ms are 10 s.
    assert ranks.num_meetings == pytest.approx(10 / stopping_module.TARGET_INTERVAL_S, abs=8)


def test_two_ranks__hear_of_the_others_bad_step(clock: Clock) -> None:
    assert signal_of(TwoRanks(other_bad=7), WishAfter()).check() == (None, 7)
    assert signal_of(TwoRanks(other_bad=7), WishAfter(), lambda: 5).check() == (None, 5)
    assert signal_of(TwoRanks(), WishAfter(StopReason.CANCEL, after=1), lambda: 5).check() == ("cancel", 5)


def test_ranks__alone_need_no_process_group() -> None:
    ranks = Ranks(context_in(Path("unused")))
    assert ranks.sums(torch.tensor(1.5), 2) == [1.5, 2.0]
    assert ranks.maxima(3, 2**62) == [3, 2**62]
    assert ranks.earliest(0) == 0
    assert ranks.earliest(9) == 9
    assert ranks.from_first(4) == 4
    ranks.wait()
