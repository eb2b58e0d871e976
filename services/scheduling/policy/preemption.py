"""Which running jobs to send back to the queue so that a more important one fits: as few and as cheap as possible."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import NamedTuple

from xsam.services.scheduling.policy.capacity import Shape, to_units
from xsam.services.scheduling.policy.free_nodes import Board
from xsam.services.scheduling.policy.quotas import Amount, QuotaBook, amount_of, amount_of_running, kind_of
from xsam.services.scheduling.policy.types import PendingJob, RunningJob
from xsam.services.settings import SchedulingSettings


@dataclass(frozen=True, slots=True)
class _NodeOption:
    """What evicting some jobs of one node brings."""

    index: int
    victims: tuple[RunningJob, ...]
    num_workers: int

    def cost(self) -> tuple[int, float, int, int]:
        """Least important victims first, then fewest per worker gained, then most workers."""
        return (
            max(victim.priority for victim in self.victims),
            len(self.victims) / self.num_workers,
            -self.num_workers,
            self.index,
        )


class _Part(NamedTuple):
    """What one candidate holds on one node, in units."""

    job: RunningJob
    gpus: int
    cpus: int


class VictimFinder:
    """Candidates of one plan, and the search for victims among them.

    A candidate is not already leaving and has run for the minimum time. The least important goes first,
    among equals the one that started last: it loses the least.
    """

    def __init__(self, running: Iterable[RunningJob], board: Board, now: datetime, config: SchedulingSettings) -> None:
        self._running = running
        self._board = board
        self._now = now
        self._config = config

    @cached_property
    def _candidates(self) -> list[RunningJob]:
        return sorted(
            (job for job in self._running if _is_candidate(job, self._now, self._config)),
            key=lambda job: (job.priority, -job.started_at.timestamp(), job.job_id),
        )

    @cached_property
    def _on_node(self) -> dict[int, list[_Part]]:
        on_node: dict[int, list[_Part]] = {}
        cluster = self._board.cluster
        for job in self._candidates:
            gpus, cpus = to_units(job.gpus_per_worker), to_units(job.cpus_per_worker)
            for index in cluster.indices_of[job.job_id]:
                count = job.node_ids.count(cluster.nodes[index].node_id)
                on_node.setdefault(index, []).append(_Part(job, gpus * count, cpus * count))
        return on_node

    def find(self, job: PendingJob, shape: Shape, quotas: QuotaBook) -> tuple[RunningJob, ...] | None:
        """Return victims of strictly lower priority that make the job fit, none of them superfluous.

        Quota that is missing can only come from the job's own team.

        Returns:
            The victims, or None if no set of them is enough.
        """
        if not self._candidates or self._candidates[0].priority >= job.priority:
            return None
        victims = self._for_quota(job, shape, quotas)
        if victims is None:
            return None
        victims = self._for_nodes(job, shape, victims)
        if victims is None:
            return None
        return self._prune(job, shape, quotas, victims)

    def _for_quota(self, job: PendingJob, shape: Shape, quotas: QuotaBook) -> list[RunningJob] | None:
        victims: list[RunningJob] = []
        if _quota_fits(job, shape, quotas, victims):
            return victims
        for candidate in self._candidates:
            if candidate.priority >= job.priority:
                break
            if candidate.team == job.team and candidate.job_id not in self._board.leaving:
                victims.append(candidate)
                if _quota_fits(job, shape, quotas, victims):
                    return victims
        return None

    def _for_nodes(self, job: PendingJob, shape: Shape, victims: list[RunningJob]) -> list[RunningJob] | None:
        if self._room(shape, victims) >= shape.num_workers:
            return victims
        gone = {victim.job_id for victim in victims}
        options = [
            option
            for index in sorted(self._on_node)
            if index not in self._board.reserved and (option := self._option(job, shape, index, gone)) is not None
        ]
        for option in sorted(options, key=_NodeOption.cost):
            victims += [victim for victim in option.victims if victim.job_id not in gone]
            gone.update(victim.job_id for victim in option.victims)
            if self._room(shape, victims) >= shape.num_workers:
                return victims
        return None

    def _option(self, job: PendingJob, shape: Shape, index: int, gone: set[str]) -> _NodeOption | None:
        """Evict from one node until it takes the gang or nobody is left to evict; None if that brings nothing."""
        left = self._board.leaving | gone
        cluster = self._board.cluster
        free = cluster.free_without(index, left) if gone else self._board.later.free[index]
        before = have = free.num_workers(shape)
        units, cpus = free.gpu_units, free.cpus
        chosen: list[RunningJob] = []
        best: _NodeOption | None = None
        for part in self._on_node[index]:
            if part.job.priority >= job.priority or have >= shape.num_workers:
                break
            if part.job.job_id in left:
                continue
            chosen.append(part.job)
            units, cpus = units + part.gpus, cpus + part.cpus
            if units < shape.gpus * (have + 1) or cpus < shape.cpus * (have + 1):
                continue  # cheap necessary condition: not one worker more could fit
            fit = cluster.free_without(index, left.union(v.job_id for v in chosen)).num_workers(shape)
            if fit > have:
                have, best = fit, _NodeOption(index, tuple(chosen), fit - before)
        return best

    def _prune(
        self, job: PendingJob, shape: Shape, quotas: QuotaBook, victims: list[RunningJob]
    ) -> tuple[RunningJob, ...]:
        """Spare every victim that is not needed, the most important and longest running first."""
        for victim in sorted(victims, key=lambda v: (-v.priority, v.started_at, v.job_id)):
            rest = [other for other in victims if other is not victim]
            if _quota_fits(job, shape, quotas, rest) and self._room(shape, rest) >= shape.num_workers:
                victims = rest
        return tuple(sorted(victims, key=lambda v: v.job_id))

    def _room(self, shape: Shape, victims: Sequence[RunningJob]) -> int:
        board = self._board
        left = board.leaving | {victim.job_id for victim in victims}
        touched = {index for victim in victims for index in board.cluster.indices_of[victim.job_id]}
        room = board.later.num_workers(shape)
        for index in touched:
            if index not in board.reserved:
                room += board.cluster.free_without(index, left).num_workers(shape)
                room -= board.later.free[index].num_workers(shape)
        return room


def _is_candidate(job: RunningJob, now: datetime, config: SchedulingSettings) -> bool:
    ran_s = (now - job.started_at).total_seconds()
    return not job.is_stopping and ran_s >= config.min_run_time_s


def _quota_fits(job: PendingJob, shape: Shape, quotas: QuotaBook, victims: Iterable[RunningJob]) -> bool:
    freed, kind, freed_of_kind = Amount(0, 0, 0), kind_of(shape), 0.0
    for victim in victims:
        if victim.team == job.team:
            freed = freed.plus(amount_of_running(victim))
            freed_of_kind += quotas.kinds_of_running(victim).get(kind, 0.0)
    return quotas.left_later(job.team, kind, freed=freed, freed_of_kind=freed_of_kind).covers(amount_of(shape))
