"""Between the rows and the pure policy: reads what a decision depends on, and writes the wishes it makes."""

import math
from collections.abc import Collection, Iterator, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, select, true, tuple_
from sqlalchemy.orm import Session

from xsam.services.cluster import cordons
from xsam.services.cluster.cordons import EVERYWHERE
from xsam.services.cluster.models import Cordon
from xsam.services.cluster.service import NodeSeen
from xsam.services.db.clock import db_now
from xsam.services.jobs.models import KIND_STUDY, Job, JobAttempt
from xsam.services.jobs.states import JobState
from xsam.services.scheduling.policy.types import Node, PendingJob, RunningJob, Snapshot
from xsam.services.scheduling.run_times import RunTimes
from xsam.services.teams import limits
from xsam.services.usage import ledger

MAX_PENDING = 5_000
"""A decision looks at this many queued jobs at most; later ones come up as the queue moves."""


def take_snapshot(
    session: Session,
    nodes: Sequence[NodeSeen],
    *,
    silent: Collection[str] = (),
    holders: tuple[str, ...] = (),
    takers: ColumnElement[bool] | None = None,
    run_times: RunTimes | None = None,
) -> Snapshot:
    """Return everything the next decision depends on.

    Args:
        session: open for reading.
        nodes: the machines as the caller sees them now.
        silent: ids of those that take no jobs at this moment; what could ever fit is counted with them.
        holders: `Plan.holders` of the decision before.
        takers: the condition that somebody is there to take a job; by default all jobs are taken.
        run_times: estimates, kept by the caller; by default nothing is estimated.
    """
    now = session.execute(select(db_now())).scalar_one()
    apart = cordons.read(session)
    waiting, running = _waiting(session, true() if takers is None else takers), _running_rows(session)
    if run_times is not None:
        run_times.look(session, [*(job.id for job in running), *(row.id for row in waiting)], now)
    run_times = run_times or RunTimes()
    return Snapshot(
        now=now,
        pending=[_pending(row, run_times) for row in waiting],
        running=[_running(job, run_times) for job in running],
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
        node.gpu_kind,
    )


def _waiting(session: Session, takers: ColumnElement[bool]) -> Sequence[Any]:
    rows = session.execute(_line(takers).limit(MAX_PENDING + 1)).all()
    return _share_of_each_owner(session, takers) if len(rows) > MAX_PENDING else rows


def _pending(row: Any, run_times: RunTimes) -> PendingJob:
    return PendingJob(
        job_id=row.id,
        team=row.team,
        user=row.submitted_by,
        priority=row.priority,
        submitted_at=row.created_at,
        num_workers=row.num_workers,
        gpus_per_worker=row.gpus_per_worker,
        cpus_per_worker=row.cpus_per_worker,
        eligible_at=row.scheduled_at,
        max_run_time_s=None if row.max_run_s is None else max(0.0, row.max_run_s - row.ran_s),
        expected_run_time_s=run_times.left_s(row.id, share_done=row.epochs_done / row.num_epochs),
        attempt=row.attempt + 1,
        gpu_kind=row.gpu_kind or "",
    )


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


def _running_rows(session: Session) -> Sequence[Any]:
    # Columns, not jobs: a job's specification is most of its row, and thousands of them took seconds to read.
    columns: tuple[Any, ...] = (
        Job.id,
        Job.team,
        Job.submitted_by,
        Job.priority,
        Job.placement,
        Job.gpus_per_worker,
        Job.cpus_per_worker,
        Job.wish,
        Job.max_run_s,
        Job.ran_s,
        Job.epochs_done,
        Job.num_epochs,
        Job.progress["step"].as_integer().label("step"),
        Job.reported_at,
        JobAttempt.started_at.label("started_at"),
    )
    query = (
        select(*columns)
        .join(JobAttempt, (JobAttempt.job_id == Job.id) & (JobAttempt.number == Job.attempt))
        .where(Job.state == JobState.RUNNING, Job.kind != KIND_STUDY)
    )
    return session.execute(query).all()


def _running(job: Any, run_times: RunTimes) -> RunningJob:
    left_s = run_times.left_s(job.id, share_done=job.epochs_done / job.num_epochs, step=job.step or 0)
    return RunningJob(
        job_id=job.id,
        team=job.team,
        user=job.submitted_by,
        priority=job.priority,
        started_at=job.started_at,
        node_ids=tuple(job.placement or ()),
        gpus_per_worker=job.gpus_per_worker,
        cpus_per_worker=job.cpus_per_worker,
        is_stopping=job.wish is not None,
        max_run_time_s=None if job.max_run_s is None else max(0.0, job.max_run_s - job.ran_s),
        # Counted from the last sign of progress, when that much was done.
        expected_end_at=None if left_s is None else (job.reported_at or job.started_at) + timedelta(seconds=left_s),
    )
