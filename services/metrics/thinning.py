"""Fewer points that draw the same picture; pure, no I/O."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import TypeVar

Point = TypeVar("Point")


def thin(points: Sequence[Point], most: int, values: Sequence[Callable[[Point], float | None]]) -> list[Point]:
    """Return at most so many points, in order: the first, the last, and of each bucket those with the extremes.

    What is drawn through them reaches as high and as low as the whole everywhere, so no spike is lost.

    Args:
        points: in order.
        most: how many to keep; at least two and two for each value.
        values: what is drawn of a point.
    """
    if len(points) <= most:
        return list(points)
    num_buckets = max((most - 2) // (2 * len(values)), 1)
    kept = {0, len(points) - 1}
    for number in range(num_buckets):
        bucket = range(len(points) * number // num_buckets, len(points) * (number + 1) // num_buckets)
        for value in values:
            known = [(drawn, place) for place in bucket if (drawn := value(points[place])) is not None]
            if known:
                kept |= {min(known)[1], max(known)[1]}
    return [points[place] for place in sorted(kept)]


def resampled(xs: Sequence[float], ys: Sequence[float], grid: Sequence[float]) -> list[float | None]:
    """Return a curve's values on another grid, by straight lines; None where the curve does not reach."""
    found: list[float | None] = []
    for x in grid:
        right = bisect_right(xs, x)
        if right == 0 or (right == len(xs) and x > xs[-1] + 1e-9 * abs(xs[-1])):
            found.append(None)
        elif right == len(xs):
            found.append(ys[-1])
        else:
            share = (x - xs[right - 1]) / (xs[right] - xs[right - 1])
            found.append(ys[right - 1] + share * (ys[right] - ys[right - 1]))
    return found
