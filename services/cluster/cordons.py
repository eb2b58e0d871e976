"""Nodes that take no new jobs because somebody said so, and maintenance: the same for all of them.

A cordon names a host, or one Ray node by its id, so that a host that comes back from a reboot is still set apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from xsam.services.cluster.models import ClusterNode, Cordon
from xsam.services.db.clock import db_now
from xsam.services.db.upsert import upsert
from xsam.services.errors import NotFoundError

EVERYWHERE = "*"
"""Stands for all nodes, those to come as well: maintenance."""


@dataclass(frozen=True, slots=True)
class Cordons:
    """All cordons at one moment."""

    rows: Sequence[Cordon]

    def of(self, host: str, node_id: str) -> Cordon | None:
        """Return what keeps new jobs from a node: maintenance before its own."""
        named = {row.node: row for row in self.rows}
        return named.get(EVERYWHERE) or named.get(node_id) or named.get(host)

    @property
    def maintenance(self) -> Cordon | None:
        """The one of all nodes."""
        return next((row for row in self.rows if row.node == EVERYWHERE), None)


def read(session: Session) -> Cordons:
    """Return all cordons."""
    return Cordons(session.scalars(select(Cordon).order_by(Cordon.node)).all())


def put(session: Session, node: str, *, reason: str | None, by: str, drain_within_s: float | None) -> Cordon:
    """Let a node take no new jobs, or change how it is left.

    Args:
        session: open in a unit of work.
        node: its host or Ray id, or EVERYWHERE.
        reason: for people.
        by: who says so.
        drain_within_s: seconds after which jobs that run there are asked to save their state and move; None lets them
            finish.

    Raises:
        NotFoundError: no such node has ever been seen.
    """
    if node != EVERYWHERE:
        _check_known(session, node)
    now = session.scalar(select(db_now()))
    drain_at = None if drain_within_s is None else session.scalar(select(db_now(drain_within_s)))
    row = {"node": node, "reason": reason, "set_by": by, "since": now, "drain_at": drain_at}
    upsert(session, Cordon, [row], keys=("node",))
    return session.get_one(Cordon, node, populate_existing=True)


def lift(session: Session, node: str) -> None:
    """Let a node take jobs again.

    Raises:
        NotFoundError: it has no cordon of this name.
    """
    if session.scalar(delete(Cordon).where(Cordon.node == node).returning(Cordon.node)) is None:
        what = "the service is not in maintenance" if node == EVERYWHERE else f"node {node} is not cordoned"
        raise NotFoundError(what, field="node")


def drained_nodes(session: Session) -> set[str]:
    """Return the ids of the nodes whose jobs are to leave by now."""
    due = select(Cordon.node).where(Cordon.drain_at <= db_now())
    names = set(session.scalars(due))
    if not names:
        return set()
    nodes = select(ClusterNode.id)
    if EVERYWHERE not in names:
        nodes = nodes.where(or_(ClusterNode.host.in_(names), ClusterNode.id.in_(names)))
    return set(session.scalars(nodes))


def _check_known(session: Session, node: str) -> None:
    known = session.scalars(select(ClusterNode.host).where(or_(ClusterNode.host == node, ClusterNode.id == node)))
    if known.first() is None:
        hosts = session.scalars(select(ClusterNode.host).where(ClusterNode.is_alive).distinct().limit(20))
        raise NotFoundError(f"no node {node}; there are {', '.join(sorted(hosts)) or 'none'}", field="node")
