"""Is one optimizer better than another here? A paired test over seeds, and what the difference costs."""

import statistics
from collections.abc import Mapping, Sequence

from scipy import stats

from xsam.services.studies.results import ConfigResult, Mode
from xsam.services.studies.schemas import ComparisonRead, PairedTestRead

MIN_PAIRS = 2
_CONFIDENCE = 0.95


def compared(first: ConfigResult, second: ConfigResult, mode: Mode, basis: str) -> ComparisonRead | None:
    """Compare an arm's winner with another one's; None where they share fewer than two seeds."""
    test = paired_test(first.values, second.values, mode)
    if test is None:
        return None
    shared = first.values.keys() & second.values.keys()
    grad_evals = _ratio([t.grad_evals for t in first.trials], [t.grad_evals for t in second.trials])
    seconds = _ratio([t.train_s for t in first.trials], [t.train_s for t in second.trials])
    return ComparisonRead(
        arm=first.arm,
        against=second.arm,
        basis=basis,
        **test.model_dump(),
        value=statistics.fmean(first.values[seed] for seed in sorted(shared)),
        against_value=statistics.fmean(second.values[seed] for seed in sorted(shared)),
        grad_evals_ratio=grad_evals,
        seconds_ratio=seconds,
        sentence=f"{first.arm} {_gained(test, second.arm)}{_price(grad_evals, seconds)}",
    )


def paired_test(first: Mapping[int, float], second: Mapping[int, float], mode: Mode) -> PairedTestRead | None:
    """Compare two arms on the seeds they share; None where those are fewer than two.

    Where the differences do not vary, they have neither an interval nor a p-value.

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
    return PairedTestRead(
        num_pairs=len(seeds),
        wins=sum(difference > 0 for difference in differences),
        gain=statistics.fmean(differences),
        gain_sd=spread,
        low=low,
        high=high,
        p_value=p_value,
    )


def _gained(test: PairedTestRead, against: str) -> str:
    verdict = "the seeds do not vary"
    if test.p_value is not None:
        verdict = f"95 % interval {test.low:+.2g} to {test.high:+.2g}, p = {test.p_value:.2g}"
    return f"{test.gain:+.2g} ± {test.gain_sd:.2g} over {test.num_pairs} seeds against {against} ({verdict})"


def _price(grad_evals: float | None, seconds: float | None) -> str:
    if grad_evals is None:
        return ""
    in_seconds = "" if seconds is None else f" and {seconds:.2f} times the seconds"
    return f"; it takes {grad_evals:.2f} times the gradient evaluations{in_seconds}"


def _ratio(first: Sequence[float | None], second: Sequence[float | None]) -> float | None:
    """Return how many times as much the first take as the second, on average; None where that is not known."""
    above, below = ([value for value in side if value is not None] for side in (first, second))
    mean = statistics.fmean(below) if below else 0.0
    return statistics.fmean(above) / mean if above and mean else None
