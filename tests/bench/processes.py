"""`python -m tests.bench.processes PID`: the processes of a service, itself and all below it, and their memory."""

import argparse
import re
from collections import defaultdict
from pathlib import Path

from tests.bench.figures import table
from tests.support.processes import descendants

_KINDS = (r"^ray::(?:[\w-]+:)?(\w+)", r"(gcs_server) --", r"(raylet)/raylet --", r"(\w+)\.py\b", r" -m ([\w.]+)")
"""What of a title says what a process is: an actor's class, a program, a module. The first that is found."""


def memory(pid: int) -> tuple[int, int]:
    """Return the resident bytes of a process, and its share of them: pages that several have, divided by those."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0
    found = {name: 1024 * int(kib) for name, kib in re.findall(r"^(Rss|Pss):\s+(\d+) kB", text, re.MULTILINE)}
    return found.get("Rss", 0), found.get("Pss", 0)


def kind(title: str) -> str:
    """Return what a process is, by its title."""
    found = (re.search(pattern, title) for pattern in _KINDS)
    return next((one.group(1) for one in found if one is not None), Path(title.split(" ", 1)[0]).name)


def count(pid: int) -> str:
    """Return a table of a process and all below it, by kind."""
    title = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    by_kind: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for one, text in {pid: title, **descendants(pid)}.items():
        by_kind[kind(text)].append(memory(one))
    rows = [_row(name, found) for name, found in sorted(by_kind.items(), key=lambda item: -sum(p for _, p in item[1]))]
    return table(
        ["process", "number", "RSS MiB", "PSS MiB"],
        [*rows, _row("all", [one for found in by_kind.values() for one in found])],
    )


def _row(name: str, found: list[tuple[int, int]]) -> list[object]:
    rss, pss = (sum(column) / 2**20 for column in zip(*found, strict=True))
    return [name, len(found), f"{rss:.0f}", f"{pss:.0f}"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pid", type=int, help="of the service, whose dispatcher and Ray it has started")
    print(count(parser.parse_args().pid))
