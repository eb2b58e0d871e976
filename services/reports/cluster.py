"""The cluster for people: machines, what is used, what runs where. From rows alone, so it can be read with Ray down."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from xsam.services.cluster import cordons, leader
from xsam.services.cluster.models import ClusterNode, Cordon, Dispatcher
from xsam.services.cluster.schemas import (
    ClusterRead,
    CordonRead,
    DispatcherRead,
    ForeignRead,
    NodeRead,
    Occupant,
    StoreRead,
    TeamBytes,
)
from xsam.services.cluster.service import live_dispatchers
from xsam.services.jobs.models import Job
from xsam.services.jobs.states import JobState
from xsam.services.retention import fill
from xsam.services.retention.models import StoreFill

MAX_LOST_NODES = 20
"""Machines that are gone are shown too, the last ones seen."""


def overview(session: Session, *, visible_team: str | None = None) -> ClusterRead:
    """Return the cluster as last seen.

    Args:
        session: open for reading.
        visible_team: the only team whose jobs the caller may identify; None for all.
    """
    occupants = _occupants(session, visible_team)
    apart = cordons.read(session)
    nodes = [_node(node, occupants.get(node.id, ()), _cordon(apart.of(node.host, node.id))) for node in _nodes(session)]
    alive = [node for node in nodes if node.is_alive]
    live = {dispatcher.id for dispatcher in live_dispatchers(session)}
    all_dispatchers = session.scalars(select(Dispatcher).order_by(Dispatcher.id)).all()
    leading = leader.current(session, leader.DISPATCH)
    return ClusterRead(
        is_live=bool(live),
        seen_at=max((dispatcher.seen_at for dispatcher in all_dispatchers), default=_last_seen(nodes)),
        num_gpus=sum(node.num_gpus for node in alive),
        num_cpus=sum(node.num_cpus for node in alive),
        used_gpus=sum(node.used_gpus for node in alive),
        used_cpus=sum(node.used_cpus for node in alive),
        maintenance=_cordon(apart.maintenance),
        nodes=nodes,
        dispatchers=[
            DispatcherRead(id=one.id, started_at=one.started_at, seen_at=one.seen_at, is_leader=one.id == leading)
            for one in all_dispatchers
            if one.id in live
        ],
        stores=[_store(row) for row in fill.read(session)],
    )


def _nodes(session: Session) -> Sequence[ClusterNode]:
    alive = select(ClusterNode).where(ClusterNode.is_alive).order_by(ClusterNode.host, ClusterNode.id)
    lost = select(ClusterNode).where(~ClusterNode.is_alive).order_by(ClusterNode.seen_at.desc()).limit(MAX_LOST_NODES)
    return [*session.scalars(alive), *session.scalars(lost)]


def _cordon(row: Cordon | None) -> CordonRead | None:
    return None if row is None else CordonRead.model_validate(row)


def _node(node: ClusterNode, jobs: Sequence[Occupant], cordon: CordonRead | None) -> NodeRead:
    return NodeRead(
        id=node.id,
        host=node.host,
        is_alive=node.is_alive,
        seen_at=node.seen_at,
        num_gpus=node.num_gpus,
        gpu_kind=node.gpu_kind,
        gpu_memory_gb=node.gpu_memory_gb,
        labels=node.labels or {},
        num_cpus=node.num_cpus,
        used_gpus=sum(job.num_gpus for job in jobs),
        used_cpus=sum(job.num_cpus for job in jobs),
        jobs=list(jobs),
        foreign=[ForeignRead.model_validate(held) for held in node.held_by_others or ()] if node.is_alive else [],
        set_aside=node.set_aside,
        cordon=cordon,
    )


def _occupants(session: Session, visible_team: str | None) -> Mapping[str, Sequence[Occupant]]:
    found: defaultdict[str, list[Occupant]] = defaultdict(list)
    running = select(Job).where(Job.state == JobState.RUNNING).order_by(Job.state_since, Job.id)
    for job in session.scalars(running):
        is_visible = visible_team in (None, job.team)
        for node_id, num_workers in Counter(job.placement or ()).items():
            found[node_id].append(
                Occupant(
                    job_id=job.id if is_visible else None,
                    user=job.submitted_by if is_visible else None,
                    team=job.team,
                    num_workers=num_workers,
                    num_gpus=num_workers * job.gpus_per_worker,
                    num_cpus=num_workers * job.cpus_per_worker,
                    since=job.state_since,
                )
            )
    return found


def _store(row: StoreFill) -> StoreRead:
    teams = [TeamBytes(team=team, total=sum(sizes.values()), **sizes) for team, sizes in row.teams.items()]
    return StoreRead(
        root=row.root,
        total_bytes=row.total_bytes,
        free_bytes=row.free_bytes,
        measured_at=row.measured_at,
        teams=sorted(teams, key=lambda one: (-one.total, one.team)),
    )


def _last_seen(nodes: Sequence[NodeRead]) -> datetime | None:
    return max((node.seen_at for node in nodes), default=None)
