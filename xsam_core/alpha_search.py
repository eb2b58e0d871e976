"""The 1-D search for alpha*: which alphas to probe, and which one wins.

A search is a generator: it yields a batch of alphas, is sent their losses, and returns an `AlphaEstimate`.
It knows nothing of models or ranks, so whoever drives it decides how losses are made and averaged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from xsam_core.types import AlphaCurve

AlphaSearch = Generator[Sequence[float], Sequence[float], "AlphaEstimate"]


@dataclass(frozen=True, slots=True)
class AlphaEstimate:
    """Result of one search: the best alpha seen, and all that was seen."""

    alpha: float
    curve: AlphaCurve


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
