"""The service in one answer: its schema, who leads, whether Ray answers; from rows only."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from xsam.services.cluster import leader
from xsam.services.cluster.models import ClusterNode, Dispatcher, LeaderLease
from xsam.services.cluster.service import live_dispatchers, live_nodes
from xsam.services.db import migrate
from xsam.services.db.clock import db_now
from xsam.services.reports.schemas import DatabaseRead, LeaderRead, RayRead, StatusRead


def read_status(session: Session, *, version: str) -> StatusRead:
    """Return how the service is.

    Args:
        session: open for reading.
        version: the release that answers.
    """
    now = session.execute(select(db_now())).scalar_one()
    leading = (LeaderLease.name == leader.DISPATCH, LeaderLease.expires_at > db_now())
    lease = session.scalar(select(LeaderLease).where(*leading))
    dispatchers, nodes = live_dispatchers(session), live_nodes(session)
    seen = session.scalar(select(func.max(Dispatcher.seen_at)))
    seen_at = seen or session.scalar(select(func.max(ClusterNode.seen_at)))
    applied, newest = migrate.applied(session), migrate.revisions()[-1]
    return StatusRead(
        version=version,
        at=now,
        leader=None if lease is None else LeaderRead(id=lease.holder, since=lease.since),
        num_dispatchers=len(dispatchers),
        ray=RayRead(
            is_live=bool(dispatchers),
            seen_at=seen_at,
            num_nodes=len(nodes),
            num_gpus=sum(node.num_gpus for node in nodes),
            num_cpus=sum(node.num_cpus for node in nodes),
        ),
        database=DatabaseRead(
            kind=session.get_bind().dialect.name,
            migration=applied,
            newest_migration=newest,
            is_current=applied == newest,
        ),
    )
