"""What a cluster pays while nothing runs: processes and memory, with one dispatcher and with a second one beside it.

The baseline is a second dispatcher that keeps as much ready as the one that leads.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

from tests.bench.figures import table
from tests.support.live_service import LiveService, live_service
from tests.support.processes import descendants
from xsam.workers.dispatch.dispatcher import Dispatcher

SETTLE_S = 5.0


def measure(num_cpus: int) -> str:
    """Return the table of what lives below this process, whose own share is left out."""
    with (
        tempfile.TemporaryDirectory() as folder,
        live_service(Path(folder), num_cpus=num_cpus, warm_processes=num_cpus) as live,
    ):
        rows = [["one dispatcher", *_settled(live, None)]]
        standby = Dispatcher(live.settings, live.database)
        rows.append(["and a standby", *_settled(live, standby)])
        standby._processes.refill(standby.nodes, {}, is_leader=True)
        rows.append(["and a second that keeps as much ready", *_settled(live, None, also_warm=standby)])
        standby.drain()
    header = [f"on a node of {num_cpus} CPUs", "ranks", "runners", "all of Ray's processes", "memory, GB"]
    return table(header, rows)


def _settled(live: LiveService, standby: Dispatcher | None, also_warm: Dispatcher | None = None) -> list[str]:
    """Advance until everything is warm and has stayed so for a while; then count."""

    def is_settled() -> bool:
        if standby is not None:
            standby.turn()
        if also_warm is not None:
            also_warm._processes.refill(also_warm.nodes, {}, is_leader=True)
        is_ready = live.dispatcher.is_warm() and (also_warm is None or also_warm.is_warm())
        return is_ready and time.monotonic() > began + SETTLE_S

    began = time.monotonic()
    live.turn_until(is_settled)
    titles = descendants(os.getpid())
    counts = [
        sum(title.startswith(f"ray::{kind}") for title in titles.values()) for kind in ("RankWorker", "JobRunner")
    ]
    return [*map(str, counts), str(len(titles)), f"{sum(map(_own_bytes, titles)) / 1e9:.2f}"]


def _own_bytes(pid: int) -> int:
    """Return a process's memory, with its share of what it has in common with others."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0  # it has ended
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def main() -> None:
    """Print the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cpus", type=int, default=2)
    print(measure(parser.parse_args().cpus))


if __name__ == "__main__":
    main()
