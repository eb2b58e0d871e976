"""What the scheduling policy reads and what it answers: plain frozen values, no rows, no I/O.

Amounts are in GPUs and CPUs, durations in seconds, instants timezone-aware UTC.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from xsam.services.scheduling.policy.reasons import Reason, ReasonCode


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
        is_held: A person paused it.
        max_run_time_s: Time after which the next attempt is stopped for certain; None means no limit.
        expected_run_time_s: Estimate of what is left to run; None where nobody knows.
        attempt: Number of the attempt that waits, from 1.
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
    is_held: bool = False
    max_run_time_s: float | None = None
    expected_run_time_s: float | None = None
    attempt: int = 1

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
        is_preemptible: Whether it can checkpoint and be requeued.
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
    is_preemptible: bool = True
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
    """A machine: its whole capacity, not what is free. A draining one is not schedulable."""

    node_id: str
    num_gpus: int
    num_cpus: float
    is_schedulable: bool = True


@dataclass(frozen=True, slots=True)
class TeamQuota:
    """What a team may hold at once; None is no limit."""

    gpus: float | None = None
    cpus: float | None = None
    running_jobs: int | None = None

    def __post_init__(self) -> None:
        """Refuse negative limits."""
        for name in ("gpus", "cpus", "running_jobs"):
            limit = getattr(self, name)
            _require(limit is None or limit >= 0, name, limit, "0 or more, or None for no limit")


@dataclass(frozen=True, slots=True)
class DecayedUsage:
    """Decayed resource-seconds of the attempts that ended, true at `as_of` (see `fair_share`)."""

    value_resource_s: float
    as_of: datetime


@dataclass(frozen=True, slots=True)
class TeamShare:
    """A team's claim: its weight, and what it and its users used (running attempts not included)."""

    weight: float = 1.0
    usage: DecayedUsage | None = None
    users: Mapping[str, DecayedUsage] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a weight that cannot divide."""
        _require(self.weight > 0, "weight", self.weight, "above 0")


@dataclass(frozen=True, slots=True)
class PolicyConfig:
    """Every number of the policy.

    Args:
        half_life_s: Time after which used resource-seconds count half.
        gpu_weight: Resource units of one GPU.
        cpu_weight: Resource units of one CPU.
        charge_window_s: A job that starts or runs is charged this long in advance (less if it is known to end
            sooner), so that one plan does not give all free resources to the team that is first by a hair.
        is_preemption_on: Whether strictly lower priorities can be sent back to the queue.
        min_run_time_s: A running job younger than this is never preempted.
        max_preempting_jobs_per_plan: Bounds both the disturbance and the time of one decision.
        is_backfill_on: Whether jobs behind a blocked one may use what it does not need.
        max_reservations: How many blocked jobs may have nodes kept for them at once. More let large jobs of a busy
            cluster start sooner; each keeps nodes partly idle while they drain.
        estimate_slack: An estimated run time counts this many times as long when it is to fit before a reservation.
        patience_s: A job that holds a reservation and has waited this long goes ahead of every priority, and its
            nodes are drained: nothing starts there that it would have to wait for, whatever is estimated. So neither
            more important jobs that trickle in nor jobs that underestimate themselves can starve it. (More important
            jobs that fill the whole cluster can: they take the reservation first.) Higher priorities can still
            preempt elsewhere, and preempt it once it runs.
        stop_grace_s: How soon a stopping job is expected to be gone; used for estimated starts only.
    """

    half_life_s: float = 7 * 86_400.0
    gpu_weight: float = 1.0
    cpu_weight: float = 0.05
    charge_window_s: float = 3_600.0
    is_preemption_on: bool = True
    min_run_time_s: float = 600.0
    max_preempting_jobs_per_plan: int = 8
    is_backfill_on: bool = True
    max_reservations: int = 1
    estimate_slack: float = 1.5
    patience_s: float = 12 * 3_600.0
    stop_grace_s: float = 60.0

    def __post_init__(self) -> None:
        """Refuse numbers that make the arithmetic meaningless."""
        _require(self.half_life_s > 0, "half_life_s", self.half_life_s, "above 0")
        _require(self.estimate_slack >= 1, "estimate_slack", self.estimate_slack, "1 or more")
        for name in (
            "gpu_weight",
            "cpu_weight",
            "charge_window_s",
            "min_run_time_s",
            "max_preempting_jobs_per_plan",
            "max_reservations",
            "patience_s",
            "stop_grace_s",
        ):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything one decision depends on. Order of the sequences does not matter.

    Args:
        now: The instant of the decision.
        pending: Queued jobs, held and not yet eligible ones included.
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
class Preemption:
    """Ask this running job to checkpoint and go back to the queue."""

    victim_job_id: str
    for_job_id: str


class Explanations(Mapping[str, Reason]):
    """Why each queued job that a plan did not place does not start, by job id."""

    @property
    @abstractmethod
    def line(self) -> Sequence[str]:
        """The jobs among them that could start if there were room, in the order in which they would."""

    @abstractmethod
    def code(self, job_id: str) -> ReasonCode:
        """Return the code of a job's reason alone; cheaper than the reason."""

    @property
    @abstractmethod
    def infeasible(self) -> Sequence[str]:
        """The jobs among them that the whole cluster could not hold; found without making any reason."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One decision.

    Args:
        placements: In the order in which the jobs were served.
        preemptions: A job that preempts is not placed yet: it starts in a later plan, once the victims are gone.
        holders: Jobs that resources or quota are kept for; to be passed to the next decision.
        reasons: Why each other queued job does not start. Computed when first read, from the state of this plan.
    """

    placements: tuple[Placement, ...]
    preemptions: tuple[Preemption, ...]
    holders: tuple[str, ...]
    reasons: Explanations
