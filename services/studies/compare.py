"""Is one optimizer better than another here? A paired test over seeds, and what the difference costs."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from scipy import stats

from xsam.services.studies.results import ConfigResult, Mode

MIN_PAIRS = 2
_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class PairedTest:
    """Differences between two arms that were trained on the same seeds; positive means that the first is better."""

    num_pairs: int
    wins: int
    """Seeds on which the first is better."""
    gain: float
    """Mean difference."""
    gain_sd: float
    """Standard deviation of the differences over seeds."""
    low: float | None
    """95 % confidence interval of the mean difference; None where the differences do not vary."""
    high: float | None
    p_value: float | None
    """Two-sided paired t-test; None where the differences do not vary."""


def paired_test(first: Mapping[int, float], second: Mapping[int, float], mode: Mode) -> PairedTest | None:
    """Compare two arms on the seeds they share; None where those are fewer than two.

    Args:
        first: value by seed.
        second: value by seed.
        mode: whether more or less is better.
    """
    seeds = sorted(first.keys() & second.keys())
    if len(seeds) < MIN_PAIRS:
        return None
    sign = 1.0 if mode == "max" else -1.0
    differences = [sign * (first[seed] - second[seed]) for seed in seeds]
    spread = statistics.stdev(differences)
    low = high = p_value = None
    if spread > 0:
        test = stats.ttest_1samp(differences, 0.0)
        interval = test.confidence_interval(_CONFIDENCE)
        low, high, p_value = float(interval.low), float(interval.high), float(test.pvalue)
    return PairedTest(
        num_pairs=len(seeds),
        wins=sum(difference > 0 for difference in differences),
        gain=statistics.fmean(differences),
        gain_sd=spread,
        low=low,
        high=high,
        p_value=p_value,
    )


def price(first: ConfigResult, second: ConfigResult) -> tuple[float | None, float | None]:
    """Return how many times the gradient evaluations and the seconds of `second` a trial of `first` takes."""
    grad_evals = _ratio([t.grad_evals for t in first.trials], [t.grad_evals for t in second.trials])
    return grad_evals, _ratio([t.train_s for t in first.trials], [t.train_s for t in second.trials])


def _ratio(first: list[float | None] | list[int | None], second: list[float | None] | list[int | None]) -> float | None:
    above, below = _mean(first), _mean(second)
    return above / below if above is not None and below else None


def _mean(values: list[float | None] | list[int | None]) -> float | None:
    known = [value for value in values if value is not None]
    mean = statistics.fmean(known) if known else math.nan
    return None if math.isnan(mean) else mean
