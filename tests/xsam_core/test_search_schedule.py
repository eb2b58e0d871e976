"""When alpha is searched."""

import pytest

from xsam_core import ArgumentError
from xsam_core.search_schedule import NEVER, UNKNOWN_ANGLE, SearchSchedule


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
