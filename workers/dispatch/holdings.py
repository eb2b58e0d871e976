"""What Ray holds, beside what the rows say: for others, and for attempts of ours that are over.

An attempt gives its placement group back itself, and Ray removes the groups of a process that died. What is left all
the same would be lost for ever, and jobs would be placed where there is no room: so it is looked for all the time.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from xsam.services.cluster.service import ForeignHolding
from xsam.services.db.session import Database
from xsam.services.jobs import events, service
from xsam.services.jobs.models import KIND_STUDY, Job
from xsam.workers.dispatch import ray_cluster
from xsam.workers.dispatch.ray_cluster import Amounts, ClusterView, Group
from xsam.workers.runner.placement_group import owner_of

log = logging.getLogger(__name__)

LOOKS_BEFORE_REMOVAL = 3
"""An attempt's end is a row a moment before its group is removed; the looks are seconds apart."""
_LOOSE = "tasks and actors outside of placement groups"


class Holdings:
    """Compares Ray's placement groups and free resources with the running jobs. Used from the dispatcher's thread.

    Args:
        database: where the running jobs are.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._view = ClusterView()
        self._looks_over: Counter[str] = Counter()
        self._loose_before: dict[str, Amounts] = {}
        self._told: frozenset[str] = frozenset()
        self._over: list[Group] = []

    def look(self, capacity: Mapping[str, Amounts]) -> Mapping[str, tuple[ForeignHolding, ...]]:
        """Return by node what Ray holds for none of our running jobs.

        Args:
            capacity: all that each node has.
        """
        groups, free = self._view.look()
        with self._database.read() as session:
            running = service.running_jobs(session)
        self._over = list(_over(groups, running))
        over_ids = {group.id for group in self._over}
        self._looks_over = Counter({group_id: self._looks_over[group_id] + 1 for group_id in over_ids})
        found: defaultdict[str, list[ForeignHolding]] = defaultdict(list)
        in_groups: defaultdict[str, Amounts] = defaultdict(Amounts)
        for group in groups:
            is_noted = self._looks_over[group.id] > 1 if group.id in over_ids else not _is_an_attempt_s(group)
            for node_id, amounts in group.by_node.items():
                in_groups[node_id] += amounts
                if is_noted:
                    found[node_id].append(_foreign(_describe(group), amounts))
        loose = {node_id: total - free.get(node_id, total) - in_groups[node_id] for node_id, total in capacity.items()}
        for node_id, amounts in loose.items():
            # Ray tells of groups at once and of what is free a moment later: only what stays counts.
            lasting = amounts.at_most(self._loose_before.get(node_id, Amounts()))
            if lasting:
                found[node_id].append(_foreign(_LOOSE, lasting))
        self._loose_before = loose
        self._tell(found)
        return {node_id: tuple(held) for node_id, held in found.items()}

    def sweep(self) -> None:
        """Remove the groups of ours whose attempt has been over for some looks; for the leader."""
        for group in self._over:
            if self._looks_over[group.id] < LOOKS_BEFORE_REMOVAL:
                continue
            log.warning("removing what Ray still holds: %s", _describe(group))
            ray_cluster.remove_group(group)
            owner = owner_of(group.name)
            if owner is None:
                continue
            with self._database.unit_of_work() as session:
                if service.team_of(session, owner[0]) is not None:
                    message = f"Ray still held {group.bundles_text} for attempt {owner[1]}, which is over; removed"
                    events.record(session, owner[0], "swept", message)

    def _tell(self, found: Mapping[str, Sequence[ForeignHolding]]) -> None:
        """Log what is new."""
        lines = {
            f"on node {node_id[:8]} Ray holds {held.num_gpus:g} GPUs and {held.num_cpus:g} CPUs for no job: {held.what}"
            for node_id, all_held in found.items()
            for held in all_held
        }
        for line in sorted(lines - self._told):
            log.warning("%s", line)
        self._told = frozenset(lines)


def _over(groups: Sequence[Group], running: Sequence[Job]) -> Iterator[Group]:
    """Yield our groups that belong to no running attempt.

    Ray Train's own groups (the option `managed`) have no name: each is taken for that of a running job of its shape.
    """
    live = {(job.id, job.attempt) for job in running}
    named = {owner_of(group.name) for group in groups}
    unnamed = Counter(
        _shape(job.num_workers, job.cpus_per_worker, job.gpus_per_worker)
        for job in running
        if job.num_workers > 1 and job.kind != KIND_STUDY and (job.id, job.attempt) not in named
    )
    for group in groups:
        if not _is_an_attempt_s(group) or owner_of(group.name) in live:
            continue
        shape = _shape(len(group.bundles), group.bundles[0].cpus, group.bundles[0].gpus)
        if not group.name and unnamed[shape] > 0:
            unnamed[shape] -= 1
            continue
        yield group


def _is_an_attempt_s(group: Group) -> bool:
    """Return whether the service made the group for an attempt: itself, or through Ray Train, which gives no name."""
    return group.is_ours and (not group.name or owner_of(group.name) is not None)


def _shape(num_workers: int, cpus: float, gpus: float) -> tuple[int, float, float]:
    return num_workers, round(cpus, 4), round(gpus, 4)


def _foreign(what: str, amounts: Amounts) -> ForeignHolding:
    return ForeignHolding(what, num_gpus=amounts.gpus, num_cpus=amounts.cpus)


def _describe(group: Group) -> str:
    owner = owner_of(group.name)
    if owner is not None:
        return f"placement group of job {owner[0]}, attempt {owner[1]}, which is over"
    if _is_an_attempt_s(group):
        return f"placement group {group.id[:8]} of a worker group whose attempt is over"
    return f"placement group {group.name or group.id[:8]} of Ray job {group.ray_job}"
