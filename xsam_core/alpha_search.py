"""The 1-D search for alpha*: when it is due, which alphas to probe, and which one wins.

A search is a generator: it yields a batch of alphas, is sent their losses, and returns an `AlphaEstimate`.
It knows nothing of models or ranks, so whoever drives it decides how losses are made and averaged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from xsam_core.arguments import check_count, check_real
from xsam_core.types import AlphaCurve

# The first bracket: 0 .. alpha_max in as many steps.
_COARSE_INTERVALS = 6
# Half-width of the later brackets, as a share of alpha_max.
_BRACKET_WIDTH = 0.25
# Ups and downs below this share of the seen range are noise, not a second hump.
_NOISE_SHARE = 0.02
# A parabola must promise at least this share of the seen range, or the search ends. On a parabola as wide as half the
# range, the paper's grid is as far from the maximum where that lies between two of its points.
_NEGLIGIBLE_SHARE = 0.0025
_MAX_REFINEMENTS = 2

# Group values must survive a checkpoint, which None and NaN do not everywhere.
NEVER = -1
UNKNOWN_ANGLE = -1.0

AlphaSearch = Generator[Sequence[float], Sequence[float], "AlphaEstimate"]


@dataclass(frozen=True, slots=True)
class AlphaEstimate:
    """Result of one search: the best alpha seen, and all that was seen."""

    alpha: float
    curve: AlphaCurve


@dataclass(frozen=True, slots=True)
class SearchSchedule:
    """Decides whether a step searches alpha, unless its caller does.

    The first step always does, so that an optimizer whose caller never asks is not SAM in disguise.

    Args:
        every: Search in steps 0, N, 2N, ...; None does not count.
        angle_change_rad: Search once the angle of the last step is further than this from the angle of the last
            search, > 0; None does not look. Reading the angle waits for the last step to finish.

    Raises:
        ArgumentError: An option is out of range.

    Example:
        >>> schedule = SearchSchedule(every=10)
        >>> schedule.is_due(step=10, searched_at=0, searched_angle_rad=0.1, angle_rad=0.1)
        True
    """

    every: int | None = None
    angle_change_rad: float | None = None

    def __post_init__(self) -> None:
        """Check the options under the names that XSAM gives them."""
        if self.every is not None:
            object.__setattr__(self, "every", check_count("alpha_every", self.every))
        if self.angle_change_rad is not None:
            angle = check_real("alpha_angle_change", self.angle_change_rad, low=0.0, open_ends=True)
            object.__setattr__(self, "angle_change_rad", angle)

    def is_due(self, *, step: int, searched_at: int, searched_angle_rad: float, angle_rad: float) -> bool:
        """Return whether step number `step` should search.

        Args:
            step: Its number, from 0.
            searched_at: Number of the last step that searched, or NEVER.
            searched_angle_rad: Angle of that step, or UNKNOWN_ANGLE.
            angle_rad: Angle of the step before this one, or UNKNOWN_ANGLE.
        """
        if searched_at == NEVER:
            return True
        if self.every is not None and step % self.every == 0:
            return True
        if self.angle_change_rad is None or UNKNOWN_ANGLE in (searched_angle_rad, angle_rad):
            return False
        return abs(angle_rad - searched_angle_rad) > self.angle_change_rad


def drive(search: AlphaSearch, evaluate: Callable[[Sequence[float]], Sequence[float]]) -> AlphaEstimate:
    """Run a search with `evaluate(alphas) -> losses`.

    Example:
        >>> drive(grid_search(2.0, 0.5, 1.0), lambda alphas: [-((a - 1.4) ** 2) for a in alphas]).alpha
        1.5
    """
    try:
        alphas = next(search)
        while True:
            alphas = search.send(evaluate(alphas))
    except StopIteration as stop:
        estimate: AlphaEstimate = stop.value
        return estimate


def grid_search(alpha_max: float, alpha_delta: float, current: float) -> AlphaSearch:
    """Probe 0, alpha_delta, .. alpha_max, as the paper does; the first of equal maxima wins.

    Args:
        alpha_max: Largest alpha, > 0.
        alpha_delta: Distance of neighbours, > 0.
        current: Kept if no loss is finite.
    """
    # The margin keeps alpha_max in the grid when alpha_max / alpha_delta rounds below a whole number.
    alphas = [i * alpha_delta for i in range(math.floor(alpha_max / alpha_delta + 1e-6) + 1)]
    losses = yield alphas
    return best_of(dict(zip(alphas, losses, strict=True)), current)


def best_of(seen: dict[float, float], current: float) -> AlphaEstimate:
    """Return the alpha of the largest finite loss, or `current` if there is none."""
    curve = AlphaCurve(*zip(*sorted(seen.items()), strict=True))
    finite = [alpha for alpha, loss in zip(curve.alphas, curve.losses, strict=True) if math.isfinite(loss)]
    return AlphaEstimate(max(finite, key=lambda alpha: seen[alpha]) if finite else current, curve)


def adaptive_search(alpha_max: float, current: float, *, is_first: bool) -> AlphaSearch:
    """Find the maximum of a smooth curve on [0, alpha_max] with few probes.

    The first time, equally spaced points bracket the maximum. Later on, three points around `current` and both
    ends are enough to see whether it is still near. Parabolas through the best point and its neighbours then
    close in on it, until the next one promises less than a small share of the curve's range. If what was seen has
    two humps, or is best away from `current` and its neighbours, the curve has moved: the equally spaced points
    are added first.

    Args:
        alpha_max: Largest alpha, > 0.
        current: Result of the last search; kept if no loss is finite.
        is_first: Whether there has been no search, so that `current` says nothing.

    Example:
        >>> probed = []
        >>> def loss(alpha):
        ...     probed.append(alpha)
        ...     return math.cos(alpha - 1.2)
        >>> search = adaptive_search(2.0, 1.0, is_first=False)
        >>> estimate = drive(search, lambda alphas: [loss(a) for a in alphas])
        >>> abs(estimate.alpha - 1.2) < 0.02, len(probed)
        (True, 6)
    """
    seen: dict[float, float] = {}
    coarse = [alpha_max * i / _COARSE_INTERVALS for i in range(_COARSE_INTERVALS + 1)]
    batch = coarse if is_first else _around(current, alpha_max)
    losses = yield batch
    seen.update(zip(batch, losses, strict=True))
    if not is_first and _has_moved(seen, current, alpha_max):
        batch = [alpha for alpha in coarse if alpha not in seen]
        losses = yield batch
        seen.update(zip(batch, losses, strict=True))
    for _ in range(_MAX_REFINEMENTS):
        alpha = _vertex(seen)
        if alpha is None:
            break
        losses = yield [alpha]
        seen[alpha] = losses[0]
    return best_of(seen, current)


def _around(current: float, alpha_max: float) -> list[float]:
    """Return both ends and three points around `current`, shifted inwards near an end, where two of them are one."""
    width = _BRACKET_WIDTH * alpha_max
    middle = min(max(current, width), alpha_max - width)
    return sorted({0.0, middle - width, middle, middle + width, alpha_max})


def _has_moved(seen: dict[float, float], current: float, alpha_max: float) -> bool:
    """Whether the maximum is not where three points around `current` could pin it down."""
    losses = [loss for _, loss in sorted(seen.items())]
    if not all(math.isfinite(loss) for loss in losses):
        return True
    margin = _NOISE_SHARE * (max(losses) - min(losses))
    rises = [b - a for a, b in pairwise(losses) if abs(b - a) > margin]
    has_valley = any(a < 0 < b for a, b in pairwise(rises))
    best = max(seen, key=lambda alpha: seen[alpha])
    return has_valley or abs(best - current) > 2 * _BRACKET_WIDTH * alpha_max + 1e-9


def _vertex(seen: dict[float, float]) -> float | None:
    """Return where a parabola through the best point and its neighbours peaks, or None if that gains nothing."""
    points = sorted((alpha, loss) for alpha, loss in seen.items() if math.isfinite(loss))
    if len(points) < 3:
        return None
    losses = [loss for _, loss in points]
    scale = max(losses) - min(losses)
    middle = min(max(losses.index(max(losses)), 1), len(points) - 2)
    (x0, y0), (x1, y1), (x2, y2) = points[middle - 1 : middle + 2]
    slope_left, slope_right = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)
    curvature = (slope_right - slope_left) / (x2 - x0)
    if curvature >= 0 or scale == 0:
        return None
    alpha = (x0 + x1) / 2 - slope_left / (2 * curvature)
    alpha = min(max(alpha, x0), x2)
    promised = y0 + slope_left * (alpha - x0) + curvature * (alpha - x0) * (alpha - x1)
    return alpha if promised - max(losses) > _NEGLIGIBLE_SHARE * scale else None
