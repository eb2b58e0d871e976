"""Between the rows and the pure policy: reads what a decision depends on, and writes the wishes it makes."""

import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, select, true, tuple_
from sqlalchemy.orm import Session

from xsam.services.cluster import cordons
from xsam.services.cluster.cordons import EVERYWHERE
from xsam.services.cluster.models import Cordon
from xsam.services.cluster.service import NodeSeen
from xsam.services.db.clock import db_now
from xsam.services.jobs.models import KIND_STUDY, Job
from xsam.services.jobs.states import JobState
from xsam.services.scheduling.policy.types import Node, Snapshot
from xsam.services.scheduling.run_times import RunTimes
from xsam.services.scheduling.seen import SeenJobs, pending_job, running_job
from xsam.services.teams import limits
from xsam.services.usage import ledger

MAX_PENDING = 5_000
"""A decision looks at this many queued jobs at most; later ones come up as the queue moves."""


def take_snapshot(  # noqa: PLR0913 - what a decision depends on, and what the one before knew
    session: Session,
    nodes: Sequence[NodeSeen],
    *,
    silent: Collection[str] = (),
    holders: tuple[str, ...] = (),
    takers: ColumnElement[bool] | None = None,
    run_times: RunTimes | None = None,
    seen: SeenJobs | None = None,
) -> Snapshot:
    """Return everything the next decision depends on.

    Args:
        session: open for reading.
        nodes: the machines as the caller sees them now.
        silent: ids of those that take no jobs at this moment; what could ever fit is counted with them.
        holders: `Plan.holders` of the decision before.
        takers: the condition that somebody is there to take a job; by default all jobs are taken.
        run_times: estimates, kept by the caller; by default nothing is estimated.
        seen: what the decision before has read, kept by the caller; by default everything is read.
    """
    seen = seen or SeenJobs()
    now = session.execute(select(db_now())).scalar_one()
    apart = cordons.read(session)
    waiting, running = _waiting(session, true() if takers is None else takers), seen.running(session, now)
    if run_times is not None:
        run_times.look(session, [*(live.id for live, _, _ in running), *(row.id for row in waiting)], now)
    run_times = run_times or RunTimes()
    pending_jobs = [pending_job(row, run_times, seen) for row in waiting]
    running_jobs = [running_job(*one, run_times, seen) for one in running]
    seen.forget_others()
    return Snapshot(
        now=now,
        pending=pending_jobs,
        running=running_jobs,
        nodes=[_node(node, apart.of(node.host, node.id), is_silent=node.id in silent) for node in nodes],
        quotas=limits.quotas(session),
        shares=ledger.shares(session, limits.weights(session)),
        holders=holders,
    )


def _node(node: NodeSeen, cordon: Cordon | None, *, is_silent: bool) -> Node:
    lost_gpus = int(node.num_gpus) if node.set_aside is not None else math.ceil(node.foreign_gpus)
    remarks = []
    if node.foreign:
        amounts = f"{node.foreign_gpus:g} GPUs and {node.foreign_cpus:g} CPUs"
        remarks.append(f"On {node.host} {amounts} are held in Ray by no job of this service.")
    if node.set_aside is not None:
        remarks.append(f"The GPUs of {node.host} are set aside: {node.set_aside}.")
    if cordon is not None:
        what = "The service is in maintenance" if cordon.node == EVERYWHERE else f"{node.host} takes no new jobs"
        remarks.append(f"{what}: {cordon.reason}." if cordon.reason else f"{what}.")
    is_schedulable = cordon is None and not is_silent
    return Node(
        node.id,
        int(node.num_gpus),
        node.num_cpus,
        is_schedulable,
        lost_gpus,
        node.foreign_cpus,
        " ".join(remarks),
        node.traits,
    )


def _waiting(session: Session, takers: ColumnElement[bool]) -> Sequence[Any]:
    is_long = session.execute(_line(takers).with_only_columns(Job.id).offset(MAX_PENDING).limit(1)).first() is not None
    return _share_of_each_owner(session, takers) if is_long else session.execute(_line(takers)).all()


def _line(takers: ColumnElement[bool]) -> Select[*tuple[Any, ...]]:
    columns: tuple[Any, ...] = (
        Job.id,
        Job.team,
        Job.submitted_by,
        Job.priority,
        Job.created_at,
        Job.num_workers,
        Job.gpus_per_worker,
        Job.cpus_per_worker,
        Job.gpu_kind,
        Job.min_gpu_memory_gb,
        Job.node_labels,
        Job.scheduled_at,
        Job.max_run_s,
        Job.ran_s,
        Job.attempt,
        Job.epochs_done,
        Job.num_epochs,
    )
    query = select(*columns).where(Job.state == JobState.QUEUED, Job.kind != KIND_STUDY, takers)
    return query.order_by(Job.priority.desc(), Job.created_at, Job.id)


def _share_of_each_owner(session: Session, takers: ColumnElement[bool]) -> list[Any]:
    """Return the first jobs of every user, as many of each: one who queues ten thousand hides nobody else's."""
    owners = list(_owners(session))
    limit = max(1, MAX_PENDING // len(owners))
    rows: list[Any] = []
    for team, user in owners:
        rows += session.execute(_line(takers).where(Job.team == team, Job.submitted_by == user).limit(limit))
    return rows


def _owners(session: Session) -> Iterator[tuple[str, str]]:
    """Yield the owners of queued jobs, each found by one step in an index, however many jobs there are of each."""
    owner = (Job.team, Job.submitted_by)
    query = select(*owner).where(Job.state == JobState.QUEUED).order_by(*owner).limit(1)
    found = session.execute(query).one_or_none()
    while found is not None:
        yield found[0], found[1]
        found = session.execute(query.where(tuple_(*owner) > tuple_(*found))).one_or_none()
