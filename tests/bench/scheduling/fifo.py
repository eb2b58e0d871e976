"""The policies to compare with: first in, first out. Gangs are placed like in the product, nothing else is known."""

from __future__ import annotations

from xsam.services.scheduling.policy.capacity import Cluster, Shape, to_units
from xsam.services.scheduling.policy.plan import Plan
from xsam.services.scheduling.policy.types import Placement, Snapshot


def plain_fifo(snapshot: Snapshot) -> Plan:
    """Start jobs in order of submission; the first that does not fit stops the line."""
    return _in_order(snapshot, stops_at_first=True)


def greedy_fifo(snapshot: Snapshot) -> Plan:
    """Start whatever fits, in order of submission; a job that does not fit is passed by every later one."""
    return _in_order(snapshot, stops_at_first=False)


def _in_order(snapshot: Snapshot, *, stops_at_first: bool) -> Plan:
    cluster = Cluster(snapshot.nodes, snapshot.running)
    book = cluster.book_without(())
    placements = []
    full: set[Shape] = set()
    for job in sorted(snapshot.pending, key=lambda job: (job.submitted_at, job.job_id)):
        shape = Shape(job.num_workers, to_units(job.gpus_per_worker), to_units(job.cpus_per_worker))
        indices = None if shape in full else book.find(shape)
        if indices is None:
            full.add(shape)
            if stops_at_first:
                break
            continue
        for index in set(indices):
            book.take(index, shape, indices.count(index))
        placements.append(Placement(job.job_id, cluster.node_ids(indices)))
    return Plan(tuple(placements), (), (), (), {})
