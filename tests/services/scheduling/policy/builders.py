"""Short ways to say a queue, a cluster and what runs on it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from xsam.services.scheduling.policy.plan import Plan, plan
from xsam.services.scheduling.policy.types import Node, PendingJob, RunningJob, Snapshot
from xsam.services.settings import SchedulingSettings

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    """Return an instant before `NOW`."""
    return NOW - timedelta(seconds=seconds)


def pending(job_id: str, gpus: float = 1.0, *, age_s: float = 100.0, **fields: Any) -> PendingJob:
    """Return a queued job of team a, one worker, one CPU, submitted `age_s` ago."""
    values: dict[str, Any] = {"team": "a", "user": "ada", "priority": 0, "num_workers": 1, "cpus_per_worker": 1.0}
    values |= fields
    return PendingJob(job_id=job_id, gpus_per_worker=gpus, submitted_at=ago(age_s), **values)


def running(job_id: str, node_ids: str, gpus: float = 1.0, *, age_s: float = 7_200.0, **fields: Any) -> RunningJob:
    """Return a job of team b that runs on the nodes named in `node_ids`, one letter each."""
    values: dict[str, Any] = {"team": "b", "user": "bob", "priority": 0, "cpus_per_worker": 1.0}
    values |= fields
    return RunningJob(job_id=job_id, gpus_per_worker=gpus, started_at=ago(age_s), node_ids=tuple(node_ids), **values)


def nodes(names: str = "n", gpus: int = 8, cpus: float = 64.0) -> list[Node]:
    """Return one node for each letter."""
    return [Node(name, gpus, cpus) for name in names]


def decide(
    queue: list[PendingJob],
    on: list[Node] | None = None,
    runs: list[RunningJob] | None = None,
    *,
    config: SchedulingSettings | None = None,
    **fields: Any,
) -> Plan:
    """Plan once at `NOW`."""
    snapshot = Snapshot(now=NOW, pending=queue, running=runs or [], nodes=nodes() if on is None else on, **fields)
    return plan(snapshot, config or SchedulingSettings())


def placed(made: Plan) -> dict[str, str]:
    """Return the nodes of each placement, as letters."""
    return {placement.job_id: "".join(placement.node_ids) for placement in made.placements}


def victims(made: Plan) -> dict[str, str]:
    """Return for whom each victim leaves."""
    return {preemption.victim_job_id: preemption.for_job_id for preemption in made.preemptions}
