"""What the scheduling policy reads and what it answers: plain frozen values, no rows, no I/O.

Amounts are in GPUs and CPUs, durations in seconds, instants timezone-aware UTC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from xsam.services.cluster.traits import UNKNOWN, NodeNeeds, NodeTraits
from xsam.services.teams.quota import TeamQuota
from xsam.services.usage.decay import TeamShare


def _require(is_valid: bool, field_name: str, value: object, allowed: str) -> None:
    if not is_valid:
        raise ValueError(f"{field_name} is {value!r}, allowed: {allowed}")


@dataclass(frozen=True, slots=True)
class PendingJob:
    """A queued job.

    Args:
        job_id: Unique; the last tie-breaker of the order.
        team: Team that quotas and fair share are counted for.
        user: Owner, for fair share inside the team.
        priority: Higher goes first; only strictly lower ones can be preempted for it.
        submitted_at: First submit; a requeued job keeps it, and so its place.
        num_workers: Size of the gang: all workers start, or none.
        gpus_per_worker: 0, a fraction below 1 (a part of one GPU), or a whole number.
        cpus_per_worker: CPUs of each worker.
        eligible_at: Not before this instant (back-off, delayed start); None means at once.
        max_run_time_s: Time after which the next attempt is stopped for certain; None means no limit.
        expected_run_time_s: Estimate of what is left to run; None where nobody knows.
        attempt: Number of the attempt that waits, from 1.
        needs: What it asks of each of its nodes; None is nothing.
    """

    job_id: str
    team: str
    user: str
    priority: int
    submitted_at: datetime
    num_workers: int
    gpus_per_worker: float
    cpus_per_worker: float
    eligible_at: datetime | None = None
    max_run_time_s: float | None = None
    expected_run_time_s: float | None = None
    attempt: int = 1
    needs: NodeNeeds | None = None

    def __post_init__(self) -> None:
        """Refuse amounts that no placement can mean."""
        gpus = self.gpus_per_worker
        if self.num_workers >= 1 and self.cpus_per_worker >= 0 and gpus >= 0 and (gpus < 1 or gpus == int(gpus)):
            return
        _require(self.num_workers >= 1, "num_workers", self.num_workers, "1 or more")
        _require(self.cpus_per_worker >= 0, "cpus_per_worker", self.cpus_per_worker, "0 or more")
        _require(False, "gpus_per_worker", gpus, "0, a fraction below 1, or a whole number")


@dataclass(frozen=True, slots=True)
class RunningJob:
    """A job that holds resources now.

    Args:
        job_id: Unique.
        team: As in `PendingJob`.
        user: As in `PendingJob`.
        priority: As in `PendingJob`.
        started_at: Start of this attempt.
        node_ids: Node of each worker, one entry per worker.
        gpus_per_worker: As in `PendingJob`.
        cpus_per_worker: As in `PendingJob`.
        is_stopping: It was already asked to leave (preempted, cancelled, paused); its resources come soon.
        max_run_time_s: Time after `started_at` at which it is stopped for certain.
        expected_end_at: Estimate of its end; None where nobody knows.
    """

    job_id: str
    team: str
    user: str
    priority: int
    started_at: datetime
    node_ids: tuple[str, ...]
    gpus_per_worker: float
    cpus_per_worker: float
    is_stopping: bool = False
    max_run_time_s: float | None = None
    expected_end_at: datetime | None = None

    @property
    def gpus(self) -> float:
        """GPUs of all workers."""
        return self.gpus_per_worker * len(self.node_ids)

    @property
    def cpus(self) -> float:
        """CPUs of all workers."""
        return self.cpus_per_worker * len(self.node_ids)


@dataclass(frozen=True, slots=True)
class Node:
    """A machine: its whole capacity, not what is free. A draining one is not schedulable.

    Args:
        node_id: Unique.
        num_gpus: GPUs in all.
        num_cpus: CPUs in all.
        is_schedulable: Whether it takes jobs now.
        lost_gpus: GPUs that no job can have for now, held by others or set aside; they count for what could ever fit.
        lost_cpus: Likewise.
        remark: Why, for people.
        traits: What it is: kind and memory of its GPUs, labels.
    """

    node_id: str
    num_gpus: int
    num_cpus: float
    is_schedulable: bool = True
    lost_gpus: int = 0
    lost_cpus: float = 0.0
    remark: str = ""
    traits: NodeTraits = UNKNOWN


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything one decision depends on. Order of the sequences does not matter.

    Args:
        now: The instant of the decision.
        pending: Queued jobs, not yet eligible ones included.
        running: Jobs that hold resources, stopping ones included.
        nodes: Known machines; a lost one is left out.
        quotas: By team; a team without an entry has no limit.
        shares: By team; a team without an entry has weight 1 and no usage.
        holders: `Plan.holders` of the decision before: who was promised resources keeps the promise.
    """

    now: datetime
    pending: Sequence[PendingJob]
    running: Sequence[RunningJob]
    nodes: Sequence[Node]
    quotas: Mapping[str, TeamQuota] = field(default_factory=dict)
    shares: Mapping[str, TeamShare] = field(default_factory=dict)
    holders: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Placement:
    """Start this job now, worker i on `node_ids[i]`."""

    job_id: str
    node_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Promise:
    """Nodes that are kept for a job that waits.

    Args:
        starts_at: When it will start; None if too few running jobs have a known end.
    """

    job_id: str
    node_ids: tuple[str, ...]
    starts_at: datetime | None


@dataclass(frozen=True, slots=True)
class Preemption:
    """Ask this running job to checkpoint and go back to the queue."""

    victim_job_id: str
    for_job_id: str
