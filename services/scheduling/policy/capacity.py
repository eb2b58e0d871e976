"""Free resources of nodes, and where the workers of a gang fit: the only place that knows what "fits" means.

Amounts are integers in steps of 1/10,000, Ray's own resolution, so that sums are exact. A fraction of a GPU lives on
one physical GPU, and a whole request needs GPUs that nothing else touches; which GPU a fraction went to is rebuilt by
best fit in order of start, as Ray places them.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from xsam.services.cluster.traits import UNKNOWN, NodeNeeds, NodeTraits
from xsam.services.scheduling.policy.types import Node, PendingJob, RunningJob

UNITS = 10_000
_WITHOUT_GPUS = -1


def to_units(amount: float) -> int:
    """Convert GPUs or CPUs to integer steps."""
    return round(amount * UNITS)


class Shape(NamedTuple):
    """What a gang asks for: jobs of one shape are alike to the nodes."""

    num_workers: int
    gpus: int
    cpus: int
    needs: NodeNeeds | None = None
    """Of each node; None is nothing."""

    @property
    def whole_gpus(self) -> int:
        """Whole GPUs of each worker, 0 for a fraction."""
        return self.gpus // UNITS

    def suits(self, traits: NodeTraits) -> bool:
        """Return whether a node is what the gang asks for, however much is free there."""
        return self.needs is None or self.needs.are_met_by(traits)

    @property
    def is_fraction(self) -> bool:
        """Whether each worker uses a part of one GPU."""
        return 0 < self.gpus < UNITS


class Free(NamedTuple):
    """What is free on a node: untouched GPUs, CPU units, and the rests of shared GPUs in ascending order."""

    gpus: int
    cpus: int
    shared: tuple[int, ...] = ()
    traits: NodeTraits = UNKNOWN

    @property
    def gpu_units(self) -> int:
        """Free GPU units, rests included."""
        return self.gpus * UNITS + sum(self.shared)

    def num_workers(self, shape: Shape) -> int:
        """Return how many workers of the shape find room."""
        if not shape.suits(self.traits):
            return 0
        fit = self.cpus // shape.cpus if shape.cpus else shape.num_workers
        if fit <= 0:
            return 0
        if shape.is_fraction:
            per_gpu = UNITS // shape.gpus
            fit = min(fit, self.gpus * per_gpu + sum(rest // shape.gpus for rest in self.shared))
        elif shape.gpus:
            fit = min(fit, self.gpus // shape.whole_gpus)
        return min(fit, shape.num_workers)

    def without(self, gpus: int, cpus: int, count: int = 1) -> Free:
        """Return what is left after `count` workers; more than there is leaves nothing (a node that shrank)."""
        left = max(0, self.cpus - cpus * count)
        if not 0 < gpus < UNITS:
            return Free(max(0, self.gpus - gpus // UNITS * count), left, self.shared, self.traits)
        whole, rests = self.gpus, list(self.shared)
        for _ in range(count):
            at = bisect_left(rests, gpus)
            if at < len(rests):
                rest = rests.pop(at) - gpus
            elif whole:
                whole, rest = whole - 1, UNITS - gpus
            else:
                continue
            if rest:
                insort(rests, rest)
        return Free(whole, left, tuple(rests), self.traits)


class Book:
    """Free resources of all nodes, with an index by free GPUs so that the best fit is found without a scan."""

    def __init__(self, free: Sequence[Free], has_gpus: Sequence[bool]) -> None:
        self.free = list(free)
        self._has_gpus = has_gpus
        # Nodes by number of untouched GPUs, those without any GPU apart; in each (free CPU units, index), ascending.
        self._buckets: dict[int, list[tuple[int, int]]] = {}
        self._shared: list[tuple[int, int]] = []
        for index in range(len(self.free)):
            self._index(index)

    def copy(self) -> Book:
        """Return a book that can be changed apart from this one."""
        twin = Book((), self._has_gpus)
        twin.free = list(self.free)
        twin._buckets = {key: list(bucket) for key, bucket in self._buckets.items()}
        twin._shared = list(self._shared)
        return twin

    def set(self, index: int, free: Free) -> None:
        """Replace what is free on a node."""
        old = self.free[index]
        if old == free:
            return
        bucket = self._buckets[self._key(index)]
        del bucket[bisect_left(bucket, (old.cpus, index))]
        for rest in old.shared:
            del self._shared[bisect_left(self._shared, (rest, index))]
        self.free[index] = free
        self._index(index)

    def take(self, index: int, shape: Shape, count: int) -> None:
        """Give `count` workers of the shape room on a node."""
        self.set(index, self.free[index].without(shape.gpus, shape.cpus, count))

    def num_workers(self, shape: Shape) -> int:
        """Return how many workers of the shape find room on all nodes together."""
        return sum(free.num_workers(shape) for free in self.free)

    def find(self, shape: Shape) -> tuple[int, ...] | None:
        """Return a node for each worker, on as few nodes as possible, or None if the gang does not fit.

        One node for all is taken where it leaves the least behind: the fewest free GPUs, then the fewest CPUs. Jobs
        without GPUs go to nodes without GPUs first, then where the fewest GPUs would be left without CPUs.
        """
        is_gang = shape.num_workers > 1
        if not shape.gpus:
            found = self._best_node(shape, shape.num_workers, keys=(_WITHOUT_GPUS,))
            if found is None and is_gang:
                found = self._find_many(shape, [index for index, has in enumerate(self._has_gpus) if not has])
            if found is not None:
                return found
        found = self._best_node(shape, shape.num_workers, keys=sorted(self._buckets))
        if found is None and is_gang:
            found = self._find_many(shape, range(len(self.free)))
        return found

    def _find_many(self, shape: Shape, indices: Iterable[int]) -> tuple[int, ...] | None:
        room = [(self.free[index].num_workers(shape), index) for index in indices]
        room = [entry for entry in room if entry[0]]
        if sum(count for count, _ in room) < shape.num_workers:
            return None
        # Most workers first; among equals the node that is fullest, so that empty ones stay whole.
        room.sort(key=lambda entry: (-entry[0], self._rank(shape, entry[1])))
        chosen: list[int] = []
        for position, (count, index) in enumerate(room):
            rest = shape.num_workers - len(chosen)
            if count >= rest:
                fitting = [entry for entry in room[position:] if entry[0] >= rest]
                last = min(fitting, key=lambda entry: self._rank(shape, entry[1]))[1]
                return (*chosen, *(last,) * rest)
            chosen += [index] * count
        return None

    def _rank(self, shape: Shape, index: int) -> tuple[bool, Free, int]:
        return (not shape.gpus and self._has_gpus[index], self.free[index], index)

    def _best_node(self, shape: Shape, count: int, keys: Iterable[int]) -> tuple[int, ...] | None:
        """Return the node that takes all workers and has the fewest free GPUs, then CPUs."""
        if shape.is_fraction:
            return self._best_shared(shape, count)
        need_gpus, need_cpus = shape.whole_gpus * count, shape.cpus * count
        for key in keys:
            bucket = self._buckets.get(key, [])
            at = bisect_left(bucket, (need_cpus, -1)) if key >= need_gpus or not need_gpus else len(bucket)
            while at < len(bucket) and not shape.suits(self.free[bucket[at][1]].traits):
                at += 1
            if at < len(bucket):
                return (bucket[at][1],) * count
        return None

    def _best_shared(self, shape: Shape, count: int) -> tuple[int, ...] | None:
        if count == 1:
            for rest_index in range(bisect_left(self._shared, (shape.gpus, -1)), len(self._shared)):
                index = self._shared[rest_index][1]
                free = self.free[index]
                if free.cpus >= shape.cpus and shape.suits(free.traits):
                    return (index,)
        for key in sorted(self._buckets):
            for _, index in self._buckets[key]:
                if self.free[index].num_workers(shape) >= count:
                    return (index,) * count
        return None

    def _key(self, index: int) -> int:
        return self.free[index].gpus if self._has_gpus[index] else _WITHOUT_GPUS

    def _index(self, index: int) -> None:
        free = self.free[index]
        insort(self._buckets.setdefault(self._key(index), []), (free.cpus, index))
        for rest in free.shared:
            insort(self._shared, (rest, index))


class Occupant(NamedTuple):
    """Workers of one job on one node."""

    job_id: str
    gpus: int
    cpus: int
    num_workers: int


class Cluster:
    """The nodes that take jobs, and who is on them; free resources are derived from that.

    Args:
        nodes: All known nodes; those that are not schedulable count for `is_feasible` only.
        running: Their workers on unknown or unschedulable nodes are left out.
    """

    def __init__(self, nodes: Iterable[Node], running: Iterable[RunningJob]) -> None:
        known = sorted(nodes, key=lambda node: node.node_id)
        self.nodes = [node for node in known if node.is_schedulable]
        self.has_gpus = [node.num_gpus > 0 for node in self.nodes]
        self.total_gpus = sum(node.num_gpus for node in known)
        self.total_cpus = sum(node.num_cpus for node in known)
        self._capacity = [
            Free(
                max(0, node.num_gpus - node.lost_gpus),
                max(0, to_units(node.num_cpus - node.lost_cpus)),
                traits=node.traits,
            )
            for node in self.nodes
        ]
        self._all_capacity = [_capacity(node) for node in known]
        self._index = {node.node_id: index for index, node in enumerate(self.nodes)}
        self.occupants: list[list[Occupant]] = [[] for _ in self.nodes]
        self.indices_of: dict[str, list[int]] = {}
        for job in sorted(running, key=lambda job: (job.started_at, job.job_id)):
            indices = [self._index[node_id] for node_id in job.node_ids if node_id in self._index]
            self.add(job.job_id, indices, to_units(job.gpus_per_worker), to_units(job.cpus_per_worker))

    def add(self, job_id: str, indices: Sequence[int], gpus: int, cpus: int) -> None:
        """Put one worker of a job on each of the given nodes."""
        counts: dict[int, int] = {}
        for index in indices:
            counts[index] = counts.get(index, 0) + 1
        for index, count in counts.items():
            self.occupants[index].append(Occupant(job_id, gpus, cpus, count))
        self.indices_of[job_id] = list(counts)

    def capacity(self, index: int) -> Free:
        """Return what a node has when none of our jobs is on it."""
        return self._capacity[index]

    def free_without(self, index: int, gone: Collection[str]) -> Free:
        """Return what is free on a node once the jobs in `gone` left it."""
        free = self._capacity[index]
        for occupant in self.occupants[index]:
            if occupant.job_id not in gone:
                free = free.without(occupant.gpus, occupant.cpus, occupant.num_workers)
        return free

    def book_without(self, gone: Collection[str]) -> Book:
        """Return the book as it is once the jobs in `gone` left."""
        return Book([self.free_without(index, gone) for index in range(len(self.nodes))], self.has_gpus)

    def is_feasible(self, shape: Shape) -> bool:
        """Return whether the gang fits on all known nodes when nothing runs."""
        return sum(free.num_workers(shape) for free in self._all_capacity) >= shape.num_workers

    def node_ids(self, indices: Sequence[int]) -> tuple[str, ...]:
        """Return the names of nodes."""
        return tuple(self.nodes[index].node_id for index in indices)


def shape_of(job: PendingJob) -> Shape:
    """Return what a queued job asks for."""
    return Shape(job.num_workers, to_units(job.gpus_per_worker), to_units(job.cpus_per_worker), job.needs)


def _capacity(node: Node) -> Free:
    return Free(node.num_gpus, to_units(node.num_cpus), traits=node.traits)


def overlap(now: Free, later: Free) -> Free:
    """Return what is free both now and later. Rests of shared GPUs are left out: which GPU they are on is unknown."""
    return Free(min(now.gpus, later.gpus), min(now.cpus, later.cpus), traits=now.traits)
