"""What a run of a figure has found: the verdict on its claim, in numbers, in words, as a picture and as a table."""

import csv
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from enum import StrEnum

from pydantic import Field
from scipy import special

from xsam.services.schemas import Read

CONFIDENCE = 0.95
MIN_PAIRS = 3


class Verdict(StrEnum):
    """Whether a claim holds in a run."""

    HOLDS = "holds"
    DOES_NOT = "does_not"
    """The opposite is seen."""
    UNDECIDED = "undecided"
    """The interval says neither."""


class Estimate(Read):
    """A mean over seeds with its interval of 95 %, by Student's t."""

    name: str
    """What was measured."""
    value: float
    low: float | None
    """Null for fewer than three values, and where they do not vary."""
    high: float | None
    num: int
    """Values: seeds, or points where there are no seeds."""


class Series(Read):
    """A line of a picture."""

    name: str
    points: list[tuple[float, float]]
    band: list[tuple[float, float]] | None = None
    """Low and high at each point."""
    is_dashed: bool = False
    has_marks: bool = True


class Heat(Read):
    """Values on a grid, behind the lines."""

    xs: list[float]
    ys: list[float]
    values: list[list[float]]
    """`values[row][column]`."""


class Arrow(Read):
    """A named vector."""

    name: str
    start: tuple[float, float]
    end: tuple[float, float]


class Panel(Read):
    """One pair of axes."""

    title: str
    x_label: str
    y_label: str
    series: list[Series] = Field(default_factory=list)
    heat: Heat | None = None
    arrows: list[Arrow] = Field(default_factory=list)
    circles: list[float] = Field(default_factory=list)
    """Radii around the origin."""
    has_log_x: bool = False
    is_square: bool = False
    """One unit is as long on both axes."""


class Finding(Read):
    """The answer of a run."""

    verdict: Verdict
    claim: str
    caption: str
    """Written from the result."""
    estimates: list[Estimate]
    """What decides comes first: of figure 1a the first two, of figure 4 all, of others the first."""
    panels: list[Panel]
    columns: list[str]
    rows: list[list[str | float | int | None]]

    def as_csv(self) -> str:
        """Return the table from which the picture is drawn."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(["" if cell is None else cell for cell in row] for row in self.rows)
        return text.getvalue()


def estimate(name: str, values: Sequence[float]) -> Estimate:
    """Return the mean of some values with its interval."""
    mean, num = statistics.fmean(values), len(values)
    low = high = None
    if num >= MIN_PAIRS and (spread := statistics.stdev(values)) > 0:
        half = float(special.stdtrit(num - 1, (1 + CONFIDENCE) / 2)) * spread / math.sqrt(num)
        low, high = mean - half, mean + half
    return Estimate(name=name, value=mean, low=low, high=high, num=num)


def paired(name: str, first: Mapping[int, float], second: Mapping[int, float]) -> Estimate | None:
    """Return the mean difference over the seeds that both have; None where they share none."""
    shared = sorted(first.keys() & second.keys())
    return estimate(name, [first[seed] - second[seed] for seed in shared]) if shared else None


def is_above(found: Estimate | None, threshold: float = 0.0) -> Verdict:
    """Return the verdict on the claim that a mean is above a threshold."""
    if found is None or found.low is None or found.high is None:
        return Verdict.UNDECIDED
    if found.low > threshold:
        return Verdict.HOLDS
    return Verdict.DOES_NOT if found.high <= threshold else Verdict.UNDECIDED


def is_within(found: Sequence[Estimate], margin: float) -> Verdict:
    """Return the verdict on the claim that all means lie within a margin of 0."""
    if any(one.low is not None and one.high is not None and (one.low > margin or one.high < -margin) for one in found):
        return Verdict.DOES_NOT
    inside = [
        one.low is not None and one.high is not None and -margin <= one.low <= one.high <= margin for one in found
    ]
    return Verdict.HOLDS if found and all(inside) else Verdict.UNDECIDED


def told(found: Estimate, *, scale: float = 1.0, unit: str = "") -> str:
    """Return an estimate in words."""
    where = f"{found.num} {found.name.split()[-1] if ' over ' in found.name else 'values'}"
    value = f"{found.value * scale:+.2f}{unit}"
    if found.low is None or found.high is None:
        return f"{value} (no interval from {where})"
    return f"{value} (95 % interval {found.low * scale:+.2f} to {found.high * scale:+.2f}, {where})"
