"""The 1-D search and when it is due, without a model; real curves are replayed from curves/."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xsam_core import ArgumentError
from xsam_core.alpha_search import (
    NEVER,
    UNKNOWN_ANGLE,
    SearchSchedule,
    adaptive_search,
    best_of,
    drive,
    grid_search,
)

CURVES = sorted((Path(__file__).parent / "curves").glob("*.json"))
ALPHA_MAX = 2.0
GRID = np.linspace(0.0, ALPHA_MAX, 201)


class Probed:
    """Evaluates a function and remembers where."""

    def __init__(self, function) -> None:
        self.function = function
        self.alphas: list[float] = []

    def __call__(self, alphas) -> list[float]:
        self.alphas += alphas
        return [self.function(alpha) for alpha in alphas]


def test_grid__is_the_authors_grid():
    probed = Probed(lambda alpha: 0.0)
    drive(grid_search(2.0, 0.1, 1.0), probed)
    assert probed.alphas == [i * 0.1 for i in range(21)]
    assert probed.alphas[3] == 0.30000000000000004


@pytest.mark.parametrize(("alpha_max", "delta", "count"), [(2.0, 0.1, 21), (0.3, 0.1, 4), (1.0, 0.3, 4), (1.0, 1.0, 2)])
def test_grid__reaches_alpha_max_where_it_is_a_multiple(alpha_max, delta, count):
    probed = Probed(lambda alpha: alpha)
    assert drive(grid_search(alpha_max, delta, 1.0), probed).alpha == probed.alphas[-1]
    assert len(probed.alphas) == count


def test_best_of__ignores_what_is_not_finite_and_keeps_the_current_alpha_if_nothing_is():
    assert best_of({0.0: math.nan, 1.0: -5.0, 2.0: math.inf}, 0.7).alpha == 1.0
    assert best_of({0.0: math.nan, 1.0: math.inf}, 0.7).alpha == 0.7


def test_best_of__the_first_of_equal_maxima_wins():
    assert best_of({2.0: 1.0, 0.5: 1.0, 1.0: 0.0}, 0.0).alpha == 0.5


def test_best_of__all_losses_negative():
    assert best_of({0.0: -3.0, 1.0: -1.0, 2.0: -2.0}, 0.0).alpha == 1.0


def replay(path: Path) -> tuple[list[int], list[float]]:
    """Return forwards per search and the missing share of each curve's range, alpha carried along."""
    counts, gaps, current = [], [], 1.0
    for index, losses in enumerate(json.loads(path.read_text())):
        probed = Probed(lambda alpha, losses=losses: float(np.interp(alpha, GRID, losses)))
        current = drive(adaptive_search(ALPHA_MAX, current, is_first=index == 0), probed).alpha
        counts.append(len(probed.alphas))
        gaps.append((max(losses) - probed.function(current)) / (max(losses) - min(losses)))
    return counts, gaps


@pytest.mark.parametrize("path", CURVES, ids=lambda path: path.stem)
def test_adaptive__finds_the_maximum_of_real_curves_in_at_most_seven_forwards(path):
    counts, gaps = replay(path)
    assert max(counts[1:]) <= 7
    assert counts[0] <= 9
    assert np.mean(np.array(gaps) <= 0.005) >= 0.95


def test_adaptive__real_curves_are_there():
    assert len(CURVES) == 5


# v(alpha) turns by alpha * psi, so a hump is at least 1 / psi wide; psi is below a right angle in training.
@settings(deadline=None, derandomize=True)
@given(
    peak=st.floats(-0.5, 2.5),
    width=st.floats(0.6, 3.0),
    height=st.floats(1e-3, 1e3),
    offset=st.floats(-1e3, 1e3),
    current=st.floats(0.0, 2.0),
    is_first=st.booleans(),
)
def test_adaptive__finds_the_maximum_of_smooth_humps_from_anywhere(peak, width, height, offset, current, is_first):
    def loss(alpha: float) -> float:
        return offset + height * math.cos(min(max((alpha - peak) / width, -math.pi), math.pi))

    probed = Probed(loss)
    estimate = drive(adaptive_search(ALPHA_MAX, current, is_first=is_first), probed)
    dense = [loss(alpha) for alpha in GRID]
    assert max(dense) - loss(estimate.alpha) <= 0.02 * (max(dense) - min(dense)) + 1e-9
    assert len(probed.alphas) <= 13
    assert 0.0 <= estimate.alpha <= ALPHA_MAX


def test_adaptive__sees_that_the_curve_has_moved():
    probed = Probed(lambda alpha: -((alpha - 0.1) ** 2))
    estimate = drive(adaptive_search(ALPHA_MAX, 1.9, is_first=False), probed)
    assert estimate.alpha == pytest.approx(0.1, abs=0.05)
    assert len(probed.alphas) > 7


def test_adaptive__looks_everywhere_if_there_are_two_humps():
    def loss(alpha: float) -> float:
        return 2 * math.exp(-((alpha - 0.4) ** 2) / 0.1) + math.exp(-((alpha - 1.5) ** 2) / 0.1)

    probed = Probed(loss)
    estimate = drive(adaptive_search(ALPHA_MAX, 1.5, is_first=False), probed)
    assert estimate.alpha == pytest.approx(0.4, abs=0.05)


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("value", [0.0, -7.0, math.nan, math.inf])
def test_adaptive__flat_and_broken_curves_end(value, is_first):
    probed = Probed(lambda alpha: value)
    estimate = drive(adaptive_search(ALPHA_MAX, 0.7, is_first=is_first), probed)
    assert 0.0 <= estimate.alpha <= ALPHA_MAX
    if not math.isfinite(value):
        assert estimate.alpha == 0.7
    assert len(probed.alphas) <= 13


def test_adaptive__curve_is_reported_in_ascending_alpha():
    probed = Probed(lambda alpha: math.cos(alpha - 1.1))
    curve = drive(adaptive_search(ALPHA_MAX, 1.0, is_first=False), probed).curve
    assert list(curve.alphas) == sorted(probed.alphas)
    assert list(curve.losses) == [probed.function(alpha) for alpha in curve.alphas]


def is_due(schedule: SearchSchedule, *, step: int = 5, searched_at: int = 0, before: float = 0.1, now: float = 0.1):
    return schedule.is_due(step=step, searched_at=searched_at, searched_angle_rad=before, angle_rad=now)


def test_is_due__always_if_never_searched():
    assert is_due(SearchSchedule(), searched_at=NEVER)


def test_is_due__never_again_without_a_rule():
    assert not is_due(SearchSchedule(), now=3.0)


@pytest.mark.parametrize(("step", "due"), [(1, False), (4, True), (6, False), (8, True)])
def test_is_due__every_n_steps(step, due):
    assert is_due(SearchSchedule(every=4), step=step) is due


@pytest.mark.parametrize(("now", "due"), [(0.1, False), (0.149, False), (0.151, True), (0.049, True)])
def test_is_due__once_the_angle_has_moved_either_way(now, due):
    assert is_due(SearchSchedule(angle_change_rad=0.05), now=now) is due


def test_is_due__not_by_an_angle_nobody_has_seen():
    assert not is_due(SearchSchedule(angle_change_rad=0.05), before=UNKNOWN_ANGLE)
    assert not is_due(SearchSchedule(angle_change_rad=0.05), now=UNKNOWN_ANGLE)


@pytest.mark.parametrize(
    ("options", "name"), [({"every": 0}, "alpha_every"), ({"angle_change_rad": -1.0}, "alpha_angle_change")]
)
def test_init__names_the_option_as_xsam_does(options, name):
    with pytest.raises(ArgumentError, match=name):
        SearchSchedule(**options)
