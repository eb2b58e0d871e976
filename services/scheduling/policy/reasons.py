"""Why a queued job does not start: a stable code, the numbers behind it, and a sentence for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, ClassVar

from xsam.services.cluster.traits import needs_in_words

_AS_DOCUMENT = {"use_attribute_docstrings": True}
"""How pydantic reads the values here that answers are made of: it need not be imported for that."""


class ReasonCode(StrEnum):
    """Stable codes; clients may branch on them."""

    NOT_YET_ELIGIBLE = "not_yet_eligible"
    NO_NODES = "no_nodes"
    INFEASIBLE_CLUSTER = "infeasible_cluster"
    INFEASIBLE_QUOTA = "infeasible_quota"
    TEAM_QUOTA = "team_quota"
    QUOTA_RESERVED = "quota_reserved"
    INSUFFICIENT_RESOURCES = "insufficient_resources"
    FRAGMENTED = "fragmented"
    RESERVED = "reserved"
    PREEMPTING = "preempting"

    @property
    def is_infeasible(self) -> bool:
        """Whether waiting cannot help: only a smaller request, a larger cluster or a larger quota can."""
        return self in (ReasonCode.INFEASIBLE_CLUSTER, ReasonCode.INFEASIBLE_QUOTA)


@dataclass(frozen=True, slots=True)
class Request:
    """What a job asks for; all its workers start together, or none."""

    __pydantic_config__: ClassVar[Any] = _AS_DOCUMENT

    num_workers: int
    gpus_per_worker: float
    cpus_per_worker: float
    gpu_kind: str = ""
    """Kind that its GPUs must be of; any where it is empty."""
    min_gpu_memory_gb: float = 0.0
    """Of each of its GPUs, in 10^9 bytes."""
    node_labels: Mapping[str, str] = field(default_factory=dict)
    """Labels that each of its nodes must have."""

    @property
    def needs(self) -> tuple[str, ...]:
        """For people, what it asks of its nodes beside amounts."""
        return needs_in_words(self.gpu_kind, self.min_gpu_memory_gb, self.node_labels.items())


@dataclass(frozen=True, slots=True)
class Shortage:
    """What is missing. For quota codes the numbers are the team's, otherwise the cluster's; null is no limit."""

    __pydantic_config__: ClassVar[Any] = _AS_DOCUMENT

    gpus: float
    """GPUs missing, 0 if the sum is enough."""
    cpus: float
    """CPUs missing, 0 if the sum is enough."""
    running_jobs: int
    """Jobs over the team's limit of running jobs."""
    free_gpus: float | None
    """GPUs free now, over all nodes that take jobs, or in the quota."""
    free_cpus: float | None
    total_gpus: float | None
    """All GPUs of the known nodes, or the quota."""
    total_cpus: float | None
    total_running_jobs: int | None
    """The quota's limit of running jobs; null for the cluster."""
    workers_that_fit: int
    """Workers of this job that would find room now."""


@dataclass(frozen=True, slots=True)
class Holding:
    """What a team holds now."""

    __pydantic_config__: ClassVar[Any] = _AS_DOCUMENT

    team: str
    gpus: float
    cpus: float
    running_jobs: int


@dataclass(frozen=True, slots=True)
class Standing:
    """The team's place in the fair share: below its part it goes first."""

    __pydantic_config__: ClassVar[Any] = _AS_DOCUMENT

    usage_fraction: float
    """The team's part of all usage, which counts half after each half-life, 0 to 1."""
    entitled_fraction: float
    """The team's part by weight among those that wait or run, 0 to 1."""
    holding: Holding


@dataclass(frozen=True, slots=True)
class Reason:
    """Why one queued job does not start now.

    Args:
        code: The first rule that stopped it.
        job_id: The job.
        team: Its team.
        user: Its owner.
        request: What it asks for.
        position: Place among the jobs that could start if there were room, from 1; None where it is not in line.
        num_in_line: Length of that line.
        shortage: What is missing; None where resources are not the cause.
        blocking_job_ids: Jobs in the way, at most five: the largest holders, the quota's users, the job the
            resources are kept for, or the victims that are asked to stop.
        holdings: Who holds the cluster, largest first.
        standing: Own and team usage.
        estimated_start_at: When resources are expected; None if not derivable.
        is_lower_bound: The estimate counts the running jobs only, not the queue ahead: it can be later, not earlier.
        eligible_at: Earliest start by back-off or wish.
        attempt: Attempt that waits.
        remarks: What the nodes miss, one sentence each: held in Ray by others, or set aside; or what the team holds of
            the kinds of GPU that it has a quota of.
    """

    code: ReasonCode
    job_id: str
    team: str
    user: str
    request: Request
    position: int | None
    num_in_line: int
    shortage: Shortage | None
    blocking_job_ids: tuple[str, ...]
    holdings: tuple[Holding, ...]
    standing: Standing
    estimated_start_at: datetime | None
    is_lower_bound: bool
    eligible_at: datetime | None
    attempt: int
    remarks: tuple[str, ...] = ()

    def sentence(self) -> str:
        """Say it to a person, in one line."""
        parts = [_CAUSES[self.code](self), *self.remarks]
        if self.position is not None:
            parts.append(f"Position {self.position} of {self.num_in_line}.")
        if self.estimated_start_at is not None:
            when = _instant(self.estimated_start_at)
            parts.append(f"Not before {when}." if self.is_lower_bound else f"Expected to start at {when}.")
        return " ".join(parts)


def _not_yet_eligible(reason: Reason) -> str:
    when = "a later time" if reason.eligible_at is None else _instant(reason.eligible_at)
    return f"Attempt {reason.attempt} may not start before {when}."


def _no_nodes(reason: Reason) -> str:
    return "No node that takes jobs is known: the cluster is away, or all its nodes are set apart."


def _infeasible_cluster(reason: Reason) -> str:
    return (
        f"Can never start: {_request_text(reason.request)} does not fit even on the empty cluster "
        f"({_total_text(reason.shortage)}). Ask for less per worker, or add nodes."
    )


def _infeasible_quota(reason: Reason) -> str:
    return (
        f"Can never start: {_request_text(reason.request)} is more than the whole quota of team {reason.team} "
        f"({_total_text(reason.shortage)}). Ask for less, or have the quota raised."
    )


def _team_quota(reason: Reason) -> str:
    held = reason.standing.holding
    return (
        f"Team {reason.team} has reached its quota ({_total_text(reason.shortage)}): it holds "
        f"{_amounts(held.gpus, held.cpus)} in {_count(held.running_jobs, 'job')}, "
        f"and {_missing_text(reason.shortage)}."
    )


def _quota_reserved(reason: Reason) -> str:
    return (
        f"The rest of team {reason.team}'s quota is kept for {_jobs_text(reason.blocking_job_ids)}, "
        "which is ahead in the team's line and waits for quota too."
    )


def _insufficient(reason: Reason) -> str:
    return (
        f"Waiting for {_request_text(reason.request)}: {_free_text(reason.shortage)}, "
        f"{_missing_text(reason.shortage)}. {_holdings_text(reason.holdings)}"
    )


def _fragmented(reason: Reason) -> str:
    fitting = 0 if reason.shortage is None else reason.shortage.workers_that_fit
    return (
        f"Waiting for {_request_text(reason.request)}: {_free_text(reason.shortage)}, but spread over nodes so that "
        f"only {fitting} of {_count(reason.request.num_workers, 'worker')} would find room. "
        f"{_holdings_text(reason.holdings)}"
    )


def _reserved(reason: Reason) -> str:
    return (
        f"There is room for {_request_text(reason.request)}, but it is kept for "
        f"{_jobs_text(reason.blocking_job_ids)}, which is ahead; a job that is sure to end in time could start."
    )


def _preempting(reason: Reason) -> str:
    return f"Starts as soon as {_jobs_text(reason.blocking_job_ids)} stopped and made room."


_CAUSES = {
    ReasonCode.NOT_YET_ELIGIBLE: _not_yet_eligible,
    ReasonCode.NO_NODES: _no_nodes,
    ReasonCode.INFEASIBLE_CLUSTER: _infeasible_cluster,
    ReasonCode.INFEASIBLE_QUOTA: _infeasible_quota,
    ReasonCode.TEAM_QUOTA: _team_quota,
    ReasonCode.QUOTA_RESERVED: _quota_reserved,
    ReasonCode.INSUFFICIENT_RESOURCES: _insufficient,
    ReasonCode.FRAGMENTED: _fragmented,
    ReasonCode.RESERVED: _reserved,
    ReasonCode.PREEMPTING: _preempting,
}


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def _count(number: float, noun: str) -> str:
    return f"{number:g} {noun}" if number == 1 else f"{number:g} {noun}s"


def _amounts(gpus: float, cpus: float) -> str:
    parts = [_count(gpus, "GPU")] if gpus else []
    if cpus or not parts:
        parts.append(_count(cpus, "CPU"))
    return " and ".join(parts)


def _request_text(request: Request) -> str:
    each = _amounts(request.gpus_per_worker, request.cpus_per_worker)
    if request.needs:
        each = f"{each} ({', '.join(request.needs)})"
    return each if request.num_workers == 1 else f"{request.num_workers} workers with {each} each"


def _total_text(shortage: Shortage | None) -> str:
    if shortage is None:
        return "no limit"
    totals = [
        _count(total, noun)
        for total, noun in (
            (shortage.total_gpus, "GPU"),
            (shortage.total_cpus, "CPU"),
            (shortage.total_running_jobs, "running job"),
        )
        if total is not None
    ]
    return ", ".join(totals) or "no limit"


def _missing_text(shortage: Shortage | None) -> str:
    if shortage is None:
        return "nothing is missing"
    missing = [
        _count(amount, noun)
        for amount, noun in (
            (shortage.gpus, "GPU"),
            (shortage.cpus, "CPU"),
            (shortage.running_jobs, "job slot"),
        )
        if amount
    ]
    if not missing:
        return "nothing is missing"
    verb = "is" if len(missing) == 1 and missing[0].startswith("1 ") else "are"
    return f"{' and '.join(missing)} {verb} missing"


def _free_text(shortage: Shortage | None) -> str:
    if shortage is None:
        return "nothing is known about free resources"
    return (
        f"{shortage.free_gpus or 0:g} of {_count(shortage.total_gpus or 0, 'GPU')} and "
        f"{shortage.free_cpus or 0:g} of {_count(shortage.total_cpus or 0, 'CPU')} are free"
    )


def _holdings_text(holdings: tuple[Holding, ...]) -> str:
    if not holdings:
        return "Nobody holds anything."
    shown = ", ".join(f"team {held.team} {_amounts(held.gpus, held.cpus)}" for held in holdings[:3])
    rest = f" and {len(holdings) - 3} more" if len(holdings) > 3 else ""
    return f"Held by {shown}{rest}."


def _jobs_text(job_ids: tuple[str, ...]) -> str:
    if not job_ids:
        return "another job"
    shown = ", ".join(job_ids[:3])
    rest = f" and {len(job_ids) - 3} more" if len(job_ids) > 3 else ""
    return f"{'job' if len(job_ids) == 1 else 'jobs'} {shown}{rest}"
