"""Which job held which node from when to when, and how full the cluster was: for pictures of the cluster over time."""

from collections import Counter, defaultdict
from datetime import datetime, timedelta

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from xsam.services.cluster import samples
from xsam.services.cluster.models import ClusterNode, ClusterSample
from xsam.services.cluster.samples import Sample
from xsam.services.cluster.service import live_nodes
from xsam.services.db.clock import db_now
from xsam.services.errors import InvalidRequestError
from xsam.services.jobs.models import KIND_STUDY, Job, JobAttempt
from xsam.services.jobs.states import JobState
from xsam.services.schemas import Read

MOST_BLOCKS = 5_000
MOST_SAMPLES = 2_000
DEFAULT_SPAN = timedelta(days=1)
LONGEST_SPAN = timedelta(days=366)


class BlockRead(Read):
    """A job's attempt on a node. Of other teams' jobs only the team and the size are shown."""

    node_id: str
    job_id: str | None
    name: str | None
    user: str | None
    team: str
    attempt: int
    num_workers: int
    """Workers on this node."""
    num_gpus: float
    num_cpus: float
    started_at: datetime
    finished_at: datetime | None
    """Null while it runs."""
    outcome: str | None


class LaneRead(Read):
    """A node that has blocks, or is alive."""

    node_id: str
    host: str | None
    """Null of a node that is no longer known."""
    is_alive: bool
    seen_at: datetime | None
    num_gpus: float | None
    num_cpus: float | None


class OccupancyRead(Read):
    """What ran where over a time."""

    since: datetime
    until: datetime
    nodes: list[LaneRead]
    """By host."""
    items: list[BlockRead]
    """By start."""
    has_more: bool
    """There were more; those that began last are shown."""


class SampleRead(Read):
    """How full the cluster was: at one minute, or on average over an hour that is long ago."""

    at: datetime
    span_s: int
    """60 or 3600."""
    num_nodes: float
    num_gpus: float
    num_cpus: float
    used_gpus: float
    used_cpus: float
    num_running: float
    num_queued: float
    teams: dict[str, tuple[float, float]]
    """GPUs and CPUs that each team held."""


class SamplesRead(Read):
    """How full the cluster was over a time."""

    since: datetime
    until: datetime
    items: list[SampleRead]
    """Oldest first; a time without a dispatcher has none."""


def occupancy(
    session: Session,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    node: str | None = None,
    visible_team: str | None = None,
) -> OccupancyRead:
    """Return which attempt held which node from when to when.

    Args:
        session: open for reading.
        since: by default a day before the end.
        until: by default now.
        node: only this node; None for all.
        visible_team: the only team whose jobs the caller may identify; None for all.

    Raises:
        InvalidRequestError: the times are in the wrong order, or too far apart.
    """
    first, last = span_of(session, since, until)
    overlaps = and_(
        JobAttempt.started_at < last, or_(JobAttempt.finished_at.is_(None), JobAttempt.finished_at >= first)
    )
    query = (
        select(JobAttempt, Job)
        .join(Job, Job.id == JobAttempt.job_id)
        .where(overlaps, JobAttempt.placement.is_not(None), Job.kind != KIND_STUDY)
        .order_by(JobAttempt.started_at.desc(), JobAttempt.job_id)
        .limit(MOST_BLOCKS + 1)
    )
    rows = session.execute(query).all()
    blocks = [block for row in rows[:MOST_BLOCKS] for block in _blocks(row[0], row[1], visible_team)]
    shown = [block for block in blocks[::-1] if node in (None, block.node_id)]
    nodes = [lane for lane in _lanes(session, {block.node_id for block in shown}) if node in (None, lane.node_id)]
    return OccupancyRead(since=first, until=last, nodes=nodes, items=shown, has_more=len(rows) > MOST_BLOCKS)


def list_samples(
    session: Session, *, since: datetime | None = None, until: datetime | None = None, points: int = MOST_SAMPLES
) -> SamplesRead:
    """Return how full the cluster was; times as for `occupancy`."""
    first, last = span_of(session, since, until)
    rows = samples.list_samples(session, since=first, until=last, most=points)
    return SamplesRead(since=first, until=last, items=[SampleRead.model_validate(row) for row in rows])


def take_sample(session: Session) -> None:
    """Store how full the cluster is now, unless this minute has a sample, and thin out old ones; for the leader."""
    now = session.execute(select(db_now())).scalar_one()
    minute = now.replace(second=0, microsecond=0)
    if session.get(ClusterSample, (samples.MINUTE_S, minute)) is not None:
        return
    nodes = live_nodes(session)
    running = session.execute(
        select(Job.team, Job.num_workers, Job.gpus_per_worker, Job.cpus_per_worker).where(
            Job.state == JobState.RUNNING, Job.kind != KIND_STUDY
        )
    ).all()
    queued = select(func.count()).select_from(Job).where(Job.state == JobState.QUEUED, Job.kind != KIND_STUDY)
    held: defaultdict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    for team, num_workers, gpus, cpus in running:
        before = held[team]
        held[team] = (before[0] + num_workers * gpus, before[1] + num_workers * cpus)
    sample = Sample(
        num_nodes=len(nodes),
        num_gpus=sum(node.num_gpus for node in nodes),
        num_cpus=sum(node.num_cpus for node in nodes),
        used_gpus=sum(gpus for gpus, _ in held.values()),
        used_cpus=sum(cpus for _, cpus in held.values()),
        num_running=len(running),
        num_queued=session.scalar(queued) or 0,
        teams=dict(held),
    )
    samples.write(session, minute, sample)
    samples.thin_out(session, now)


def span_of(session: Session, since: datetime | None, until: datetime | None) -> tuple[datetime, datetime]:
    """Return a time's beginning and end: by default the last day.

    Raises:
        InvalidRequestError: they are in the wrong order, or too far apart.
    """
    last = until or session.execute(select(db_now())).scalar_one()
    first = since or last - DEFAULT_SPAN
    if not timedelta(0) < last - first <= LONGEST_SPAN:
        message = f"since is {first.isoformat()} and until is {last.isoformat()}; allowed is up to a year in this order"
        raise InvalidRequestError(message, field="since")
    return first, last


def _blocks(attempt: JobAttempt, job: Job, visible_team: str | None) -> list[BlockRead]:
    is_visible = visible_team in (None, job.team)
    return [
        BlockRead(
            node_id=node_id,
            job_id=job.id if is_visible else None,
            name=job.name if is_visible else None,
            user=job.submitted_by if is_visible else None,
            team=job.team,
            attempt=attempt.number,
            num_workers=num_workers,
            num_gpus=num_workers * job.gpus_per_worker,
            num_cpus=num_workers * job.cpus_per_worker,
            started_at=attempt.started_at,
            finished_at=attempt.finished_at,
            outcome=attempt.outcome if is_visible else None,
        )
        for node_id, num_workers in Counter(attempt.placement or ()).items()
    ]


def _lanes(session: Session, with_blocks: set[str]) -> list[LaneRead]:
    shown = or_(ClusterNode.is_alive, ClusterNode.id.in_(with_blocks))
    rows = session.scalars(select(ClusterNode).where(shown).order_by(ClusterNode.host, ClusterNode.id)).all()
    known = [
        LaneRead(
            node_id=row.id,
            host=row.host,
            is_alive=row.is_alive,
            seen_at=row.seen_at,
            num_gpus=row.num_gpus,
            num_cpus=row.num_cpus,
        )
        for row in rows
    ]
    gone = sorted(with_blocks - {row.id for row in rows})
    nothing = {"host": None, "is_alive": False, "seen_at": None, "num_gpus": None, "num_cpus": None}
    return [*known, *(LaneRead(node_id=node_id, **nothing) for node_id in gone)]
