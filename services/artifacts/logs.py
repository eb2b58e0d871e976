"""A job's log lines: one file per rank and attempt, written as they come, merged by time when read.

A line is `<RFC 3339 UTC> <text>`. Files are the only channel, so lines survive a killed process, a stopped Ray and a
cancelled job. A full file is moved to `.1` (replacing the one before), so a job keeps at most two files per rank.
"""

import errno
import heapq
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from xsam.services.db.clock import utc_now

MAX_FILE_BYTES = 8 * 1024 * 1024
MAX_LINE_CHARS = 8_192
_CHUNK_BYTES = 1 << 20
_STAMP_BYTES = len("2026-01-01T00:00:00.000000Z")


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
        """Append each line of `text` with the present time; over-long lines are cut, those that find no room lost."""
        stamp = utc_now().isoformat(timespec="microseconds").replace("+00:00", "Z")
        lines = [f"{stamp} {line[:MAX_LINE_CHARS]}\n" for line in text.splitlines()]
        data = "".join(lines).encode("utf-8", "replace")
        with self._lock:
            if self._file.closed:
                return
            try:
                if self._size and self._size + len(data) > self._max_bytes:
                    self._rotate()
                self._file.write(data)
            except OSError:
                return  # a full disk takes lines from the log, not the job from its owner
            self._size += len(data)

    def close(self) -> None:
        """Close the file; later writes are dropped."""
        with self._lock:
            self._file.close()

    def _rotate(self) -> None:
        with suppress(OSError):  # a full disk: numbers of lines matter less than the lines
            _note_dropped(self._path)
        with suppress(FileNotFoundError):  # moved before, when there was no room for the new one
            self._path.replace(_rotated(self._path))
        full, self._file = self._file, self._path.open("ab", buffering=0)
        full.close()
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


def num_dropped(folder: Path, *, rank: int | None = None) -> int:
    """Return how many lines were there before those that are kept, so that lines keep their numbers."""
    wanted = f"rank-{rank}.dropped" if rank is not None else "rank-*.dropped"
    return sum(_read_count(path) for path in folder.glob(wanted))


def _note_dropped(path: Path) -> None:
    """Count the lines that are lost when a file is rotated onto an earlier one."""
    earlier = _rotated(path)
    if not (earlier.exists() and path.exists()):
        return
    with earlier.open("rb") as file:
        lost = sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(_CHUNK_BYTES), b""))
    count = path.with_suffix(".dropped")
    fresh = count.with_suffix(".dropped-new")
    fresh.write_text(str(_read_count(count) + lost))
    fresh.replace(count)


def _read_count(path: Path) -> int:
    try:
        return int(path.read_text())
    except (FileNotFoundError, ValueError):
        return 0


class LogFollower:
    """Returns the lines that came since the last call, for following a log without reading it again.

    Args:
        folder: `JobFolder.logs(attempt)`; may not exist yet.
        rank: only this rank's lines; by default all ranks'.
    """

    def __init__(self, folder: Path, *, rank: int | None = None) -> None:
        self._folder = folder
        self._wanted = f"rank-{rank}.log" if rank is not None else "rank-*.log"
        # By rank file: the stamp that its file began with, and the bytes of it already returned.
        self._positions: dict[Path, tuple[bytes, int]] = {}

    def poll(self) -> list[LogLine]:
        """Return complete new lines of all ranks, ordered by time."""
        lines = [line for path in sorted(self._folder.glob(self._wanted)) for line in self._poll_rank(path)]
        return sorted(lines, key=lambda line: (line.at, line.rank))

    def _poll_rank(self, path: Path) -> list[LogLine]:
        """Return what came after the position, in its file wherever that has been moved, and in later files."""
        rank = _rank_of(path)
        since, position = self._positions.get(path, (b"", 0))
        lines: list[LogLine] = []
        with ExitStack() as stack:
            files = _open_by_stamp(path, stack)
            for stamp in sorted(stamp for stamp in files if stamp >= since):
                start = position if stamp == since else 0
                files[stamp].seek(start)
                data = files[stamp].read()
                complete = data[: data.rfind(b"\n") + 1]
                lines += [_parse(line, rank) for line in complete.splitlines()]
                self._positions[path] = (stamp, start + len(complete))
        return lines


def _open_by_stamp(path: Path, stack: ExitStack) -> dict[bytes, BinaryIO]:
    """Open the file and the one it was rotated to, keyed by their first time stamp.

    The stamp tells files apart whatever they are called now; inodes can't, they are used again. The rotated name is
    opened a second time because a rotation may happen between the first two.
    """
    files: dict[bytes, BinaryIO] = {}
    for part in (_rotated(path), path, _rotated(path)):
        file = _open(part)
        if file is None:
            continue
        stack.enter_context(file)
        stamp = file.read(_STAMP_BYTES)
        if len(stamp) == _STAMP_BYTES:
            files.setdefault(stamp, file)
    return files


def _open(path: Path) -> BinaryIO | None:
    """Open a log; None where there is none (not rotated yet, or being rotated), or a link that code has put there."""
    try:
        return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
    except FileNotFoundError:
        return None
    except OSError as e:
        if e.errno == errno.ELOOP:
            return None
        raise


def _read_rank(path: Path) -> Iterator[LogLine]:
    rank = _rank_of(path)
    for part in (_rotated(path), path):
        file = _open(part)
        if file is not None:
            with file:
                yield from (_parse(line, rank) for line in file)


def _rotated(path: Path) -> Path:
    return path.with_suffix(".log.1")


def _rank_of(path: Path) -> int:
    return int(path.name.removeprefix("rank-").split(".", 1)[0])


def _parse(line: bytes, rank: int) -> LogLine:
    at, _, text = line.decode("utf-8", "replace").rstrip("\n").partition(" ")
    return LogLine(at, rank, text)
