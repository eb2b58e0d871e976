"""A seeded trace that looks like one recorded on a shared training cluster.

Five teams with habits of their own; run times are log-normal (median and spread per team); people submit by day and
rarely at weekends, some jobs come as sweeps of many at once; half of the jobs carry a time limit, which is generous as
people make it; for half of them there is an estimate, which is noisy. The shape of such traces: Jeon et al., "Analysis
of large-scale multi-tenant GPU clusters for DNN training workloads", USENIX ATC 2019. The numbers are ours, chosen for
contention, not taken from a recording.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace

from tests.bench.scheduling.simulator import TraceJob
from xsam.services.scheduling.policy.types import Node

MIN_RUN_S = 30.0
MAX_RUN_S = 48 * 3_600.0
_DAY_S = 86_400.0

CLUSTER = tuple(
    [Node(f"gpu-{number:02}", 8, 96.0) for number in range(32)]
    + [Node(f"cpu-{number:02}", 0, 64.0) for number in range(6)]
)
CLUSTER_GPUS = sum(node.num_gpus for node in CLUSTER)


@dataclass(frozen=True, slots=True)
class Habit:
    """How a team works.

    Args:
        team: Its name.
        part: Part of all jobs.
        num_users: Members.
        sweep_mean: Mean number of jobs of one submit.
        median_run_s: Median run time.
        sigma: Spread of the logarithm of the run time.
        shapes: (workers, GPUs per worker, CPUs per worker) and their weights.
        priorities: Weights of the priorities 0, 10 and 20.
    """

    team: str
    part: float
    num_users: int
    sweep_mean: float
    median_run_s: float
    sigma: float
    shapes: tuple[tuple[tuple[int, float, float], float], ...]
    priorities: tuple[float, float, float]


_AUDIO = (((1, 1.0, 8.0), 6.0), ((1, 2.0, 16.0), 3.0), ((4, 1.0, 8.0), 2.0))
_LANGUAGE = (((1, 8.0, 64.0), 6.0), ((2, 8.0, 64.0), 3.0), ((4, 8.0, 64.0), 1.0), ((8, 8.0, 64.0), 0.2))
_ROBOTICS = (((1, 0.0, 4.0), 5.0), ((1, 0.25, 4.0), 3.0), ((1, 1.0, 8.0), 4.0))
_SEARCH = (((1, 1.0, 8.0), 5.0), ((1, 0.5, 4.0), 3.0), ((1, 4.0, 32.0), 1.0))
_VISION = (((1, 1.0, 8.0), 8.0), ((1, 2.0, 16.0), 2.0), ((1, 4.0, 32.0), 0.5))

HABITS = (
    Habit("audio", 0.18, 8, 1.5, 3_600.0, 1.2, _AUDIO, (8, 2, 0)),
    Habit("language", 0.05, 6, 1.2, 4_500.0, 1.1, _LANGUAGE, (8, 2, 0)),
    Habit("robotics", 0.27, 10, 4.0, 2_400.0, 1.4, _ROBOTICS, (9, 1, 0)),
    Habit("search", 0.10, 12, 1.0, 1_200.0, 1.0, _SEARCH, (3, 4, 3)),
    Habit("vision", 0.40, 12, 40.0, 3_600.0, 1.2, _VISION, (9, 1, 0)),
)


def make_trace(num_jobs: int, seed: int, load: float) -> list[TraceJob]:
    """Return a trace.

    Args:
        num_jobs: Number of jobs.
        seed: Same seed, same trace.
        load: GPU time asked for, as a part of what the cluster has during the days of the trace; this sets their
            number.
    """
    rng = random.Random(seed)
    drafts = [draft for habit in HABITS for draft in _of_team(rng, habit, round(num_jobs * habit.part))]
    gpu_s = sum(job.gpus * job.run_s for job in drafts)
    days = gpu_s / (CLUSTER_GPUS * load) / _DAY_S
    clock = _Clock(days)
    timed = [replace(job, submit_s=clock.instant_s(job.submit_s)) for job in drafts]
    timed.sort(key=lambda job: (job.submit_s, job.job_id))
    return timed


def _of_team(rng: random.Random, habit: Habit, num_jobs: int) -> list[TraceJob]:
    """Return jobs whose submit times are places in working time, 0 to 1."""
    jobs: list[TraceJob] = []
    while len(jobs) < num_jobs:
        user, place = f"{habit.team}-{rng.randrange(habit.num_users)}", rng.random()
        shape = rng.choices([shape for shape, _ in habit.shapes], [weight for _, weight in habit.shapes])[0]
        priority = rng.choices((0, 10, 20), habit.priorities)[0]
        size = 1 + int(rng.expovariate(1 / habit.sweep_mean)) if habit.sweep_mean > 1 else 1
        for _ in range(min(size, num_jobs - len(jobs))):
            run_s = min(MAX_RUN_S, max(MIN_RUN_S, rng.lognormvariate(math.log(habit.median_run_s), habit.sigma)))
            limit_s = math.ceil(run_s * rng.uniform(1.2, 5.0) / 900.0) * 900.0
            jobs.append(
                TraceJob(
                    job_id=f"{habit.team}-{len(jobs):05}",
                    team=habit.team,
                    user=user,
                    priority=priority,
                    submit_s=place,
                    run_s=run_s,
                    num_workers=shape[0],
                    gpus_per_worker=shape[1],
                    cpus_per_worker=shape[2],
                    max_run_time_s=limit_s if rng.random() < 0.5 else None,
                    expected_run_time_s=run_s * rng.lognormvariate(0.0, 0.3) if rng.random() < 0.5 else None,
                )
            )
    return jobs


class _Clock:
    """Maps places in working time to instants, by how much is submitted in each hour of the trace."""

    def __init__(self, days: float) -> None:
        self._hours = max(1, math.ceil(days * 24))
        total, self._sums = 0.0, [0.0]
        for hour in range(self._hours):
            total += _activity(hour)
            self._sums.append(total)

    def instant_s(self, place: float) -> float:
        """Return the instant that a part `place` of all work is submitted before."""
        target = place * self._sums[-1]
        low, high = 0, self._hours
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._sums[middle] <= target else (low, middle)
        within = (target - self._sums[low]) / (self._sums[low + 1] - self._sums[low])
        return (low + within) * 3_600.0


def _activity(hour: int) -> float:
    by_day = 1.0 + 0.8 * math.sin((hour % 24 - 8) / 24 * 2 * math.pi)  # most at 14 h, least at 2 h
    return by_day * (0.4 if hour // 24 % 7 >= 5 else 1.0)
