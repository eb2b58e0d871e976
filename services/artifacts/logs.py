"""A job's log lines: one file per rank and attempt, written as they come, merged by time when read.

A line is `<RFC 3339 UTC> <text>`. Files are the only channel, so lines survive a killed process, a stopped Ray and a
cancelled job. A full file is moved to `.1` (replacing the one before), so a job keeps at most two files per rank.
"""

import heapq
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from services.clock import utc_now

MAX_FILE_BYTES = 8 * 1024 * 1024
MAX_LINE_CHARS = 8_192


class LogWriter:
    """Appends lines of one rank. Thread-safe.

    Args:
        folder: `JobFolder.logs(attempt)`; made if missing.
        rank: the writer's rank.
        max_bytes: size at which the file is rotated.
    """

    def __init__(self, folder: Path, rank: int, *, max_bytes: int = MAX_FILE_BYTES) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"rank-{rank}.log"
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._file = self._path.open("ab", buffering=0)
        self._size = self._path.stat().st_size

    def write(self, text: str) -> None:
        """Append each line of `text` with the present time; over-long lines are cut."""
        stamp = utc_now().isoformat(timespec="microseconds").replace("+00:00", "Z")
        lines = [f"{stamp} {line[:MAX_LINE_CHARS]}\n" for line in text.splitlines()]
        data = "".join(lines).encode("utf-8", "replace")
        with self._lock:
            if self._file.closed:
                return
            if self._size and self._size + len(data) > self._max_bytes:
                self._rotate()
            self._file.write(data)
            self._size += len(data)

    def close(self) -> None:
        """Close the file; later writes are dropped."""
        with self._lock:
            self._file.close()

    def _rotate(self) -> None:
        self._file.close()
        self._path.replace(self._path.with_suffix(".log.1"))
        self._file = self._path.open("ab", buffering=0)
        self._size = 0


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line with its rank; sorts by time."""

    at: str
    rank: int
    text: str


def read_lines(folder: Path, *, rank: int | None = None) -> Iterator[LogLine]:
    """Yield the lines of an attempt in the order of their times; nothing if no rank has written yet.

    Args:
        folder: `JobFolder.logs(attempt)`.
        rank: only this rank's lines; by default all ranks'.
    """
    wanted = f"rank-{rank}.log" if rank is not None else "rank-*.log"
    streams = [_read_rank(path) for path in sorted(folder.glob(wanted))]
    yield from heapq.merge(*streams, key=lambda line: (line.at, line.rank))


class LogFollower:
    """Returns the lines that came since the last call, for following a log without reading it again.

    Args:
        folder: `JobFolder.logs(attempt)`; may not exist yet.
        rank: only this rank's lines; by default all ranks'.
    """

    def __init__(self, folder: Path, *, rank: int | None = None) -> None:
        self._folder = folder
        self._wanted = f"rank-{rank}.log" if rank is not None else "rank-*.log"
        self._positions: dict[Path, tuple[int, int]] = {}

    def poll(self) -> list[LogLine]:
        """Return complete new lines of all ranks, ordered by time."""
        lines = [line for path in sorted(self._folder.glob(self._wanted)) for line in self._poll_rank(path)]
        return sorted(lines, key=lambda line: (line.at, line.rank))

    def _poll_rank(self, path: Path) -> list[LogLine]:
        try:
            status = path.stat()
        except FileNotFoundError:  # just being rotated; the next look finds both files
            return []
        inode, position = self._positions.get(path, (status.st_ino, 0))
        lines: list[LogLine] = []
        if inode != status.st_ino:  # rotated: finish the old file first
            lines = self._read_from(path.with_suffix(".log.1"), position)[0]
            position = 0
        new, position = self._read_from(path, position)
        self._positions[path] = (status.st_ino, position)
        return lines + new

    def _read_from(self, path: Path, position: int) -> tuple[list[LogLine], int]:
        try:
            with path.open("rb") as file:
                file.seek(position)
                data = file.read()
        except FileNotFoundError:
            return [], position
        complete = data[: data.rfind(b"\n") + 1]
        rank = _rank_of(path)
        return [_parse(line, rank) for line in complete.splitlines()], position + len(complete)


def _read_rank(path: Path) -> Iterator[LogLine]:
    rank = _rank_of(path)
    for part in (path.with_suffix(".log.1"), path):
        with suppress(FileNotFoundError), part.open("rb") as file:  # not rotated yet, or being rotated
            yield from (_parse(line, rank) for line in file)


def _rank_of(path: Path) -> int:
    return int(path.name.removeprefix("rank-").split(".", 1)[0])


def _parse(line: bytes, rank: int) -> LogLine:
    at, _, text = line.decode("utf-8", "replace").rstrip("\n").partition(" ")
    return LogLine(at, rank, text)
