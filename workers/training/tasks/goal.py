"""What makes one epoch better than another: a metric, and whether more or less of it is better."""

import math
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Goal:
    """A metric's name and its better end; its text is `name:max` or `name:min`."""

    metric: str
    is_max: bool

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the goal that `name:max` or `name:min` means.

        Raises:
            ValueError: it is neither.
        """
        metric, _, end = text.rpartition(":")
        if not metric or end not in ("max", "min"):
            raise ValueError(f"best is {text!r}; allowed are 'name:max' and 'name:min'")
        return cls(metric, end == "max")

    def __str__(self) -> str:
        return f"{self.metric}:{'max' if self.is_max else 'min'}"

    def score(self, value: float | None) -> float:
        """Return the value as a number of which more is better; no value is worse than any."""
        if value is None:
            return -math.inf
        return value if self.is_max else -value
