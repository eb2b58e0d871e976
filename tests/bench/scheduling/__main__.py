"""Measures the scheduling policy: the time of a decision, and a replayed trace against first in, first out.

    python -m tests.bench.scheduling [--jobs 10000] [--out FILE.png] [--seed 1] [--load 0.8] [--only decision|trace]

Prints markdown tables. Deterministic but for the times.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from tests.bench.scheduling import decision_time, plot, report
from tests.bench.scheduling.fifo import greedy_fifo, plain_fifo
from tests.bench.scheduling.simulator import Record, Site, simulate
from tests.bench.scheduling.trace import CLUSTER, CLUSTER_GPUS, make_trace
from xsam.services.scheduling.policy.plan import plan

TARGET_MS = 100.0
POLICIES = {"fair share": plan, "plain FIFO": plain_fifo, "FIFO that skips": greedy_fifo}


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scheduling", description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000, help="jobs in the queue, and in the trace")
    parser.add_argument("--rounds", type=int, default=100, help="timed decisions per scenario")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--load", type=float, default=0.8, help="GPU time asked for, as a part of the cluster's")
    parser.add_argument("--only", choices=("decision", "trace"))
    parser.add_argument("--out", type=Path, help="PNG to draw the replay into")
    options = parser.parse_args()
    if options.only != "trace":
        _print_decision_times(options.jobs, options.rounds, options.seed)
    if options.only != "decision":
        _print_trace(options.jobs, options.seed, options.load, options.out)


def _print_decision_times(num_jobs: int, rounds: int, seed: int) -> None:
    timings = decision_time.measure(num_jobs, rounds, seed)
    print(f"## Time of one decision: {num_jobs} queued jobs, {decision_time.NUM_NODES} nodes with 8 GPUs\n")
    print(f"Of {rounds} decisions each, in milliseconds; the target is {TARGET_MS:g}. CPU time leaves out what other")
    print("processes of the machine took meanwhile.\n")
    print("| scenario | started | preempted | waiting | median | p99 | CPU median | CPU p99 | with all reasons |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for t in timings:
        print(
            f"| {t.scenario} | {t.num_placements} | {t.num_preemptions} | {t.num_waiting} | {t.median_ms:.1f} | "
            f"{t.p99_ms:.1f} | {t.cpu_median_ms:.1f} | {t.cpu_p99_ms:.1f} | {t.with_reasons_ms:.0f} |"
        )
    print()


def _print_trace(num_jobs: int, seed: int, load: float, out: Path | None) -> None:
    trace = make_trace(num_jobs, seed, load)
    days = trace[-1].submit_s / 86_400.0
    print(f"## Replay of {num_jobs} jobs of 5 teams in {days:.1f} days on {CLUSTER_GPUS} GPUs (seed {seed})\n")
    replays: dict[str, list[Record]] = {}
    for policy, decide in POLICIES.items():
        start = time.process_time()
        replays[policy] = list(simulate(trace, Site(CLUSTER), decide).values())
        print(f"{policy}: replayed in {time.process_time() - start:.0f} s of CPU time")
    summaries = [report.summarise(policy, records, CLUSTER_GPUS) for policy, records in replays.items()]
    print(f"\n{report.overview_table(summaries)}\n\n{report.waiting_table(summaries)}\n")
    print(f"{report.groups_table(summaries)}\n\n{report.NOTES}")
    if out is not None:
        plot.draw(replays, summaries, CLUSTER_GPUS, out)
        print(f"\nDrawn: {out}")


if __name__ == "__main__":
    main()
