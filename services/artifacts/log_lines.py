"""Log lines by number: a part of them, those with a text, how many there are."""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from xsam.services.artifacts.logs import LogLine, num_dropped, read_lines
from xsam.services.schemas import Read


class NumberedLine(Read):
    """One line."""

    number: int
    """Counted from 1 over the attempt, or over one rank's lines where one was asked for."""
    at: str
    """RFC 3339 UTC."""
    rank: int
    text: str


class LinesRead(Read):
    """A part of an attempt's lines, in order."""

    attempt: int
    first_number: int | None
    """Of the oldest line that is kept; null while there is none."""
    last_number: int
    """Of the newest line; 0 while there is none."""
    num_found: int | None
    """How many lines hold the text that was asked for; null where none was."""
    items: list[NumberedLine]


def read_numbered(  # noqa: PLR0913 - ways to say which lines
    folder: Path,
    attempt: int,
    *,
    rank: int | None = None,
    from_line: int | None = None,
    before: int | None = None,
    find: str | None = None,
    limit: int = 500,
) -> LinesRead:
    """Return some lines; without `from_line` the last ones.

    A rank's lines keep their numbers for good. Numbers over all ranks stay as long as no rank writes late and no
    rank's file is full.

    Args:
        folder: `JobFolder.logs(attempt)`.
        attempt: its number.
        rank: only this rank's lines, numbered by themselves; None for all.
        from_line: lines from this number on, the first ones.
        before: lines below this number.
        find: only lines with this text, in any case.
        limit: lines at most.
    """
    dropped = num_dropped(folder, rank=rank)
    counted = _Counted(enumerate(read_lines(folder, rank=rank), start=dropped + 1), find)
    wanted = (line for line in counted if _is_between(line[0], from_line, before))
    kept = list(islice(wanted, limit)) if from_line is not None else list(deque(wanted, maxlen=limit))
    deque(counted, maxlen=0)  # the rest is counted
    return LinesRead(
        attempt=attempt,
        first_number=dropped + 1 if counted.last else None,
        last_number=counted.last or dropped,
        num_found=None if find is None else counted.num_found,
        items=[NumberedLine(number=number, at=line.at, rank=line.rank, text=line.text) for number, line in kept],
    )


def _is_between(number: int, from_line: int | None, before: int | None) -> bool:
    return (from_line is None or number >= from_line) and (before is None or number < before)


class _Counted:
    """Numbered lines, counted as they pass; with a text to find, only those that hold it."""

    def __init__(self, lines: Iterable[tuple[int, LogLine]], find: str | None) -> None:
        self._lines = iter(lines)
        self._find = None if find is None else find.casefold()
        self.last = 0
        self.num_found = 0

    def __iter__(self) -> Iterator[tuple[int, LogLine]]:
        for number, line in self._lines:
            self.last = number
            if self._find is None or self._find in line.text.casefold():
                self.num_found += 1
                yield number, line
