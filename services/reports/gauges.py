"""The state of the whole service for monitoring: out of rows, so every API process tells the same.

No query here grows with history: jobs that ended are counted when they end, never when somebody looks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from xsam.services.cluster import leader
from xsam.services.cluster.counters import DispatcherCounters
from xsam.services.cluster.models import ClusterNode
from xsam.services.cluster.service import live_dispatchers, live_nodes
from xsam.services.db.clock import db_now
from xsam.services.jobs.models import KIND_STUDY, Job
from xsam.services.jobs.states import JobState
from xsam.services.scheduling import last_decision
from xsam.services.usage import ledger

_LIVE = (JobState.QUEUED, JobState.RUNNING, JobState.PAUSED)


@dataclass(frozen=True, slots=True)
class TeamJobs:
    """A team's jobs in one state (studies, which only wait for their trials, are not among them).

    Args:
        oldest_s: how long the first of them has been in this state.
        num_gpus: of all of them.
        num_overdue: whose lease has run out and whom nobody has taken back yet.
        num_idle: whose GPUs are known to be idle.
        idle_gpus: of those.
        utilization: of GPUs where they are measured, on average over these GPUs, 0 to 1; None where none are.
        gpu_used_bytes: of their memory, in sum.
    """

    team: str
    state: str
    num_jobs: int
    oldest_s: float
    num_gpus: float
    num_cpus: float
    num_overdue: int
    num_idle: int = 0
    idle_gpus: float = 0.0
    utilization: float | None = None
    gpu_used_bytes: int = 0


@dataclass(frozen=True, slots=True)
class NodeGauges:
    """What a node has, and what of it no job of ours can get."""

    host: str
    node_id: str
    num_gpus: float
    num_cpus: float
    foreign_gpus: float
    foreign_cpus: float
    set_aside: str | None

    @property
    def is_set_aside(self) -> bool:
        """Whether its GPUs are not used."""
        return self.set_aside is not None


@dataclass(frozen=True, slots=True)
class DispatcherGauges:
    """A living dispatcher and what it counted."""

    name: str
    """`HOST:PID`."""
    is_leader: bool
    silent_s: float
    counters: DispatcherCounters


@dataclass(frozen=True, slots=True)
class Gauges:
    """What monitoring reads, at one instant of the database's clock."""

    jobs: Sequence[TeamJobs]
    num_studies: int
    waiting: Mapping[str, Mapping[str, int]]
    """Of the jobs that the last decision looked at: by team, by reason."""
    decided_s_ago: float | None
    outcomes: Sequence[tuple[str, str, int]]
    """Team, how attempts ended, how many."""
    nodes: Sequence[NodeGauges]
    dispatchers: Sequence[DispatcherGauges]


def read(session: Session) -> Gauges:
    """Return the service's state now."""
    now = session.execute(select(db_now())).scalar_one()
    decision = last_decision.waiting(session)
    leading = leader.current(session, leader.DISPATCH)
    is_study = Job.kind == KIND_STUDY
    return Gauges(
        jobs=_jobs(session, now),
        num_studies=session.scalar(select(func.count()).where(Job.state == JobState.RUNNING, is_study)) or 0,
        waiting={} if decision is None else decision[1],
        decided_s_ago=None if decision is None else (now - decision[0]).total_seconds(),
        outcomes=ledger.outcomes(session),
        nodes=[_node(node) for node in live_nodes(session)],
        dispatchers=[
            DispatcherGauges(
                name=one.id.rpartition(":")[0],
                is_leader=one.id == leading,
                silent_s=(now - one.seen_at).total_seconds(),
                counters=DispatcherCounters.of(one.counters),
            )
            for one in live_dispatchers(session)
        ],
    )


def _jobs(session: Session, now: datetime) -> list[TeamJobs]:
    gpus = Job.num_workers * Job.gpus_per_worker
    query = (
        select(
            Job.team,
            Job.state,
            func.count().label("number"),
            func.min(Job.state_since).label("since"),
            func.sum(gpus).label("gpus"),
            func.sum(Job.num_workers * Job.cpus_per_worker).label("cpus"),
            func.sum(case((Job.lease_expires_at <= now, 1), else_=0)).label("overdue"),
            func.count(Job.idle_warned_at).label("idle"),
            func.sum(case((Job.idle_warned_at.is_not(None), gpus), else_=0.0)).label("idle_gpus"),
            func.sum(Job.gpu_utilization * gpus).label("used_gpus"),
            func.sum(case((Job.gpu_utilization.is_not(None), gpus), else_=0.0)).label("measured_gpus"),
            func.sum(Job.gpu_used_bytes).label("used_bytes"),
        )
        .where(Job.state.in_(_LIVE), Job.kind != KIND_STUDY)
        .group_by(Job.team, Job.state)
        .order_by(Job.team, Job.state)
    )
    return [
        TeamJobs(
            team=row.team,
            state=row.state,
            num_jobs=row.number,
            oldest_s=max(0.0, (now - row.since).total_seconds()),
            num_gpus=float(row.gpus),
            num_cpus=float(row.cpus),
            num_overdue=int(row.overdue),
            num_idle=row.idle,
            idle_gpus=float(row.idle_gpus),
            utilization=row.used_gpus / row.measured_gpus if row.measured_gpus else None,
            gpu_used_bytes=int(row.used_bytes or 0),
        )
        for row in session.execute(query)
    ]


def _node(node: ClusterNode) -> NodeGauges:
    held = node.held_by_others or ()
    return NodeGauges(
        host=node.host,
        node_id=node.id,
        num_gpus=node.num_gpus,
        num_cpus=node.num_cpus,
        foreign_gpus=sum(one["num_gpus"] for one in held),
        foreign_cpus=sum(one["num_cpus"] for one in held),
        set_aside=node.set_aside,
    )
