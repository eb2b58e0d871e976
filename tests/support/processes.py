"""The process tree below a process, read from /proc, and processes that are stopped for a while."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


def children(pid: int) -> list[int]:
    """Return the processes that any thread of `pid` has started and that still live."""
    try:
        texts = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except FileNotFoundError:
        return []
    return [int(child) for text in texts for child in text.split()]


def descendants(pid: int) -> dict[int, str]:
    """Return all processes below `pid` with their titles (Ray names its workers by actor class)."""
    found: dict[int, str] = {}
    for child in children(pid):
        try:
            title = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except FileNotFoundError:
            continue
        found[child] = title.strip()
        found |= descendants(child)
    return found


def is_alive(pid: int) -> bool:
    """Return whether the process exists and has not ended (a zombie has)."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rsplit(")", 1)[1].split()[0] != "Z"


@contextmanager
def stopped(pids: Sequence[int]) -> Iterator[None]:
    """Stop processes with SIGSTOP while the block runs."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
