"""How long one decision takes with 10,000 queued jobs on 125 nodes with 8 GPUs each."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial

from xsam.services.scheduling.policy.plan import plan
from xsam.services.scheduling.policy.types import Node, PendingJob, RunningJob, Snapshot
from xsam.services.teams.quota import TeamQuota
from xsam.services.usage.decay import DecayedUsage, TeamShare

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TEAMS = ("audio", "language", "robotics", "search", "vision")
# (workers, GPUs per worker, CPUs per worker) and how often each is asked for.
SHAPES = ((1, 0.0, 2.0), (1, 0.25, 2.0), (1, 1.0, 6.0), (1, 2.0, 12.0), (4, 1.0, 6.0), (1, 8.0, 48.0), (8, 8.0, 48.0))
SHAPE_WEIGHTS = (10, 8, 50, 12, 10, 8, 2)
NUM_NODES = 125


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds over all rounds of one scenario."""

    scenario: str
    median_ms: float
    p99_ms: float
    cpu_median_ms: float
    cpu_p99_ms: float
    with_reasons_ms: float
    num_placements: int
    num_preemptions: int
    num_waiting: int


def pending_jobs(rng: random.Random, num_jobs: int) -> list[PendingJob]:
    """Return a queue with three priorities, five teams with twenty users each, and a realistic mix of shapes."""
    jobs = []
    for number in range(num_jobs):
        workers, gpus, cpus = rng.choices(SHAPES, SHAPE_WEIGHTS)[0]
        jobs.append(
            PendingJob(
                job_id=f"job-{number:05}",
                team=rng.choice(TEAMS),
                user=f"user-{rng.randrange(20)}",
                priority=rng.choices((0, 10, 20), (8, 3, 1))[0],
                submitted_at=NOW - timedelta(seconds=rng.uniform(0, 86_400)),
                num_workers=workers,
                gpus_per_worker=gpus,
                cpus_per_worker=cpus,
                max_run_time_s=rng.choice((None, None, rng.lognormvariate(8, 1.5))),
                expected_run_time_s=rng.choice((None, rng.lognormvariate(7.5, 1.5))),
            )
        )
    return jobs


def nodes(num_nodes: int = NUM_NODES) -> list[Node]:
    """Return nodes with 8 GPUs and 64 CPUs."""
    return [Node(f"node-{number:03}", 8, 64.0) for number in range(num_nodes)]


def fill(snapshot: Snapshot, rng: random.Random, *, priority: int, fraction: float) -> Snapshot:
    """Run the plans' own placements of other jobs until the cluster is full, then end some of them."""
    filler = [replace(job, job_id=f"old-{job.job_id}", priority=priority) for job in pending_jobs(rng, 12_000)]
    by_id = {job.job_id: job for job in filler}
    placements = plan(replace(snapshot, pending=filler, quotas={})).placements
    running = []
    for placement in placements:
        if rng.random() > fraction:
            continue
        job = by_id[placement.job_id]
        running.append(
            RunningJob(
                job_id=job.job_id,
                team=job.team,
                user=job.user,
                priority=priority,
                started_at=NOW - timedelta(seconds=rng.uniform(0, 20_000)),
                node_ids=placement.node_ids,
                gpus_per_worker=job.gpus_per_worker,
                cpus_per_worker=job.cpus_per_worker,
                max_run_time_s=job.max_run_time_s,
                expected_end_at=rng.choice((None, NOW + timedelta(seconds=rng.lognormvariate(8, 1.5)))),
            )
        )
    return replace(snapshot, running=running)


def scenarios(num_jobs: int, seed: int) -> dict[str, Snapshot]:
    """Return the situations a dispatcher meets, the empty and the contended cluster included."""
    rng = random.Random(seed)
    empty = Snapshot(
        now=NOW,
        pending=pending_jobs(rng, num_jobs),
        running=(),
        nodes=nodes(),
        quotas={"audio": TeamQuota(gpus=300), "vision": TeamQuota(running_jobs=400)},
        shares={team: TeamShare(1.0, DecayedUsage(rng.uniform(0, 1e7), NOW)) for team in TEAMS},
    )
    full = fill(empty, rng, priority=20, fraction=1.0)
    return {
        "empty cluster": empty,
        "full cluster, nothing to preempt": full,
        "2% of the jobs just ended": fill(empty, rng, priority=20, fraction=0.98),
        "half full": fill(empty, rng, priority=20, fraction=0.5),
        "full of low priority: preemption": fill(empty, rng, priority=0, fraction=1.0),
    }


def _elapsed_ms(work: Callable[[], object]) -> tuple[float, float]:
    """Return wall time and CPU time."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return (time.perf_counter() - wall) * 1_000.0, (time.process_time() - cpu) * 1_000.0


def _percentile(values: Iterable[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def measure(num_jobs: int = 10_000, rounds: int = 100, seed: int = 1) -> list[Timing]:
    """Time `plan` alone, and a few times more with every reason read."""
    timings = []
    for name, snapshot in scenarios(num_jobs, seed).items():
        made = plan(snapshot)
        # The next turn of a dispatcher: who was promised something keeps it.
        again = replace(snapshot, holders=made.holders)
        times = [_elapsed_ms(partial(plan, again)) for _ in range(rounds)]
        with_reasons = [_elapsed_ms(partial(_all_reasons, again))[0] for _ in range(5)]
        timings.append(
            Timing(
                scenario=name,
                median_ms=_percentile((wall for wall, _ in times), 0.5),
                p99_ms=_percentile((wall for wall, _ in times), 0.99),
                cpu_median_ms=_percentile((cpu for _, cpu in times), 0.5),
                cpu_p99_ms=_percentile((cpu for _, cpu in times), 0.99),
                with_reasons_ms=_percentile(with_reasons, 0.5),
                num_placements=len(made.placements),
                num_preemptions=len(made.preemptions),
                num_waiting=len(made.reasons),
            )
        )
    return timings


def _all_reasons(snapshot: Snapshot) -> int:
    return len([reason.code for reason in plan(snapshot).reasons.values()])
