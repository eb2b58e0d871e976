from hypothesis import given
from hypothesis import strategies as st

from xsam.services.metrics.thinning import resampled, thin

_VALUES = st.lists(st.none() | st.floats(-1e6, 1e6), max_size=400)


def _value(point: tuple[int, float | None]) -> float | None:
    return point[1]


@given(_VALUES, st.integers(10, 60))
def test_thin__keeps_order_ends_and_extremes(values: list[float | None], most: int) -> None:
    points = list(enumerate(values))
    kept = thin(points, most, (_value,))
    assert len(kept) <= most
    assert kept == sorted(kept)
    if points:
        assert (kept[0], kept[-1]) == (points[0], points[-1])
    known = [value for value in values if value is not None]
    if known:
        drawn = [value for _, value in kept if value is not None]
        assert (min(drawn), max(drawn)) == (min(known), max(known))


def test_thin__keeps_a_spike_and_leaves_few_points_alone() -> None:
    points = [(place, 100.0 if place == 517 else 0.0) for place in range(1000)]
    assert (517, 100.0) in thin(points, 20, (_value,))
    assert thin(points[:20], 20, (_value,)) == points[:20]


def test_resampled__is_a_straight_line_between_and_nothing_beyond() -> None:
    assert resampled([0.0, 1.0, 2.0], [0.0, 10.0, 0.0], [-0.5, 0.0, 0.5, 1.0, 1.75, 2.0, 2.5]) == [
        *(None, 0.0, 5.0, 10.0),
        *(2.5, 0.0, None),
    ]
