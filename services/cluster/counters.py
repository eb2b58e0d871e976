"""What a dispatcher counts of its own work; it stands in its row, so that whoever answers monitoring can tell it."""

from bisect import bisect_left
from typing import Self

from pydantic import BaseModel, Field

BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper ends of a histogram's buckets; what is longer falls into one more."""


class Histogram(BaseModel):
    """How often something took how long."""

    counts: list[int] = Field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    sum_s: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.sum_s += seconds

    def cumulative(self) -> list[tuple[str, float]]:
        """Return each bucket's upper end and how many took at most so long, the way monitoring wants them."""
        ends = [f"{bound:g}" for bound in BOUNDS_S] + ["+Inf"]
        return [(end, float(sum(self.counts[: number + 1]))) for number, end in enumerate(ends)]


class DispatcherCounters(BaseModel):
    """Counts since the process started. What another release counts besides is ignored, what it lacks is 0."""

    release: str = ""
    """Of the code that the process runs."""
    turns: Histogram = Field(default_factory=Histogram)
    decisions: Histogram = Field(default_factory=Histogram)
    """Reading the queue, planning and acting on the plan."""
    statements: Histogram = Field(default_factory=Histogram)
    """In the database."""
    num_placements: int = 0
    num_preemptions: int = 0
    num_leases_lost: int = 0
    """Attempts taken back: their runner fell silent, or did not stop when it was asked to."""

    @classmethod
    def of(cls, document: dict[str, object] | None) -> Self:
        """Return what a row holds; nothing counted where it holds nothing."""
        return cls.model_validate(document or {})
