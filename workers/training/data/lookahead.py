"""Batches in their order, of which the next ones can be looked at before they are taken."""

from collections import deque
from collections.abc import Iterator
from typing import Any


class Lookahead:
    """An iterator over a feed's batches. What was looked at is still to come, once.

    Args:
        batches: the feed's.
    """

    def __init__(self, batches: Iterator[Any]) -> None:
        self._batches = batches
        self._seen: deque[Any] = deque()

    def __iter__(self) -> "Lookahead":
        """Return itself."""
        return self

    def __next__(self) -> Any:
        """Return the next batch."""
        return self._seen.popleft() if self._seen else next(self._batches)

    def next_ones(self, num: int) -> list[Any]:
        """Return the next `num` batches without taking them, fewer where the epoch ends before."""
        while len(self._seen) < num:
            try:
                self._seen.append(next(self._batches))
            except StopIteration:
                break
        return list(self._seen)[:num]
