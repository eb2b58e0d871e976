"""When and where a blocked job will start, and so what jobs behind it may use meanwhile (EASY backfill).

Why nothing starves. A reservation stays with its job (`Plan.holders`). If enough running jobs have a known end, it has
a start time, and others may use its nodes only if they end before, or only what it leaves over: if ends are limits,
the start time can only move forward. Limits are generous and estimates are wrong, so a job that waited for long
(`SchedulingSettings.patience_s`) stops relying on them: its nodes are those where the least has still to be released,
and nothing may be started that makes this least amount larger. Each end of a job there makes it smaller, until it is 0.

References:
    D. Lifka, "The ANL/IBM SP scheduling system", JSSPP 1995 (EASY); draining by the least amount is our own.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Container, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from xsam.services.scheduling.policy.capacity import UNITS, Book, Cluster, Free, Shape
from xsam.services.scheduling.policy.types import PendingJob, RunningJob
from xsam.services.settings import SchedulingSettings

_CPUS_PER_GPU = 16
"""How many missing CPUs weigh as much as one missing GPU where the place with the least to release is chosen."""


@dataclass(frozen=True, slots=True)
class End:
    """A job that is known to end."""

    at: datetime
    job_id: str


@dataclass(frozen=True, slots=True)
class Reservation:
    """Where a blocked job will start.

    Args:
        starts_at: When; None if too few running jobs have a known end.
        extra: By reserved node, what others may hold there without delaying it.
    """

    starts_at: datetime | None
    extra: dict[int, Free]


def known_end(job: RunningJob, now: datetime) -> datetime | None:
    """Return when a running job ends: its estimate or its enforced limit, whichever is first.

    An estimate that has passed says nothing. An enforced limit that has passed is about to be enforced.
    """
    ends = []
    if job.max_run_time_s is not None:
        ends.append(max(now, job.started_at + timedelta(seconds=job.max_run_time_s)))
    if job.expected_end_at is not None and job.expected_end_at > now:
        ends.append(job.expected_end_at)
    return min(ends, default=None)


def time_bound_s(job: PendingJob, config: SchedulingSettings) -> float | None:
    """Return how long a job that starts now is taken to hold its resources, None if nothing is known."""
    if job.max_run_time_s is not None:
        return job.max_run_time_s
    return None if job.expected_run_time_s is None else job.expected_run_time_s * config.estimate_slack


def sort_ends(ends: Iterable[End]) -> list[End]:
    """Return ends in order of time, deterministic."""
    return sorted(ends, key=lambda end: (end.at, end.job_id))


def earliest_start(
    cluster: Cluster,
    book: Book,
    shape: Shape,
    ends: Sequence[End],
    gone: Collection[str],
    closed: Container[int] = (),
) -> tuple[datetime | None, Book]:
    """Return when a gang fits if nothing else starts, and the free resources at that time.

    Args:
        cluster: The nodes and who is on them.
        book: Free resources now; the gang does not fit in it.
        shape: The gang.
        ends: Known ends in order of time.
        gone: Jobs that `book` counts as gone already.
        closed: Nodes that are not to be used; nothing is free on them in `book`.

    Returns:
        The instant and the book then; None and the book after all known ends if the gang does not fit by then.
    """
    book = book.copy()
    left = set(gone)
    room = book.num_workers(shape)
    for end in ends:
        if end.job_id in left:
            continue
        left.add(end.job_id)
        for index in cluster.indices_of.get(end.job_id, ()):
            if index in closed:
                continue
            before = book.free[index].num_workers(shape)
            book.set(index, cluster.free_without(index, left))
            room += book.free[index].num_workers(shape) - before
        if room >= shape.num_workers:
            return end.at, book
    return None, book


def make_reservation(
    cluster: Cluster,
    book: Book,
    shape: Shape,
    ends: Sequence[End],
    gone: Collection[str],
    closed: Container[int] = (),
) -> Reservation | None:
    """Reserve nodes for a gang that does not fit now; the arguments are those of `earliest_start`.

    Without `ends`, or if the known ones do not make room, the nodes with the least to release are taken.

    Returns:
        The reservation, or None if the nodes that are not closed are too few even when empty.
    """
    starts_at, then = earliest_start(cluster, book, shape, ends, gone, closed)
    indices = None if starts_at is None else then.find(shape)
    if indices is None:
        indices = _least_to_release(cluster, then, shape, closed)
    if len(indices) < shape.num_workers:
        return None
    extra = {index: _left_over(then.free[index], shape, indices.count(index)) for index in indices}
    return Reservation(starts_at, extra)


def _least_to_release(cluster: Cluster, book: Book, shape: Shape, closed: Container[int]) -> tuple[int, ...]:
    """Return nodes for the workers such that the sum of what is missing on them is the smallest possible.

    What is missing on a node is a convex function of the workers put there, so taking the cheapest next worker again
    and again is exact.
    """
    chosen: list[int] = []
    room = {
        index: cluster.capacity(index).num_workers(shape) for index in range(len(cluster.nodes)) if index not in closed
    }
    heap = [(_missing(book.free[index], shape, 1), 0, index, 1) for index, count in room.items() if count]
    heapq.heapify(heap)
    while heap and len(chosen) < shape.num_workers:
        _, _, index, count = heapq.heappop(heap)
        chosen.append(index)
        if room[index] > count:
            free = book.free[index]
            step = _missing(free, shape, count + 1) - _missing(free, shape, count)
            heapq.heappush(heap, (step, -count, index, count + 1))
    return tuple(chosen)


def _missing(free: Free, shape: Shape, count: int) -> int:
    gpus = max(0, count * shape.gpus - free.gpu_units)
    return gpus * _CPUS_PER_GPU + max(0, count * shape.cpus - free.cpus)


def _left_over(free: Free, shape: Shape, count: int) -> Free:
    gpus = count * shape.whole_gpus
    if shape.is_fraction:
        gpus = -(-count // (UNITS // shape.gpus))
    return Free(max(0, free.gpus - gpus), max(0, free.cpus - count * shape.cpus), traits=free.traits)
