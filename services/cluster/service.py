"""What is known of the cluster from SQL alone: nodes and dispatchers as last seen, and whether a job could ever fit."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Self

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from xsam.services.cluster.counters import DispatcherCounters
from xsam.services.cluster.models import ClusterNode, Dispatcher
from xsam.services.db.clock import db_now
from xsam.services.db.upsert import upsert
from xsam.services.errors import InfeasibleError
from xsam.services.specs.job import Resources

DISPATCHER_SILENT_S = 10.0
"""A dispatcher that has said nothing for so long counts as gone; it speaks every other second."""
NODE_UNSEEN_S = 30.0
"""A node that no dispatcher has reported for so long counts as gone."""


@dataclass(frozen=True, slots=True)
class ForeignHolding:
    """What Ray holds on a node for none of our running jobs."""

    what: str
    """For people: whose it is, as far as Ray tells."""
    num_gpus: float
    num_cpus: float


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """A node of the Ray cluster with everything it has, used or not."""

    id: str
    host: str
    num_cpus: float
    num_gpus: float
    foreign: tuple[ForeignHolding, ...] = ()
    set_aside: str | None = None
    """Why its GPUs are not used; None while they work, as far as is known."""
    gpu_kind: str = ""
    """What its GPUs are, as Ray names them; empty where it does not say."""

    @property
    def foreign_gpus(self) -> float:
        """GPUs that Ray holds for others, in sum."""
        return sum(held.num_gpus for held in self.foreign)

    @property
    def foreign_cpus(self) -> float:
        """CPUs that Ray holds for others, in sum."""
        return sum(held.num_cpus for held in self.foreign)


@dataclass(frozen=True, slots=True)
class DispatcherId:
    """Which process a dispatcher is; rows hold it as `HOST:PID:START`."""

    host: str
    pid: int
    start: str
    """Tells it from others of the same pid: in containers every dispatcher has the same."""

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}:{self.start}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return what `str` made a text of; None for any other text."""
        parts = text.split(":")
        if len(parts) != 3 or not parts[1].isdecimal():
            return None
        return cls(parts[0], int(parts[1]), parts[2])


def report_alive(
    session: Session,
    dispatcher_id: str,
    *,
    nodes: Sequence[NodeSeen],
    num_warm_runners: int,
    counters: DispatcherCounters | None = None,
) -> None:
    """Write a dispatcher's sign of life, and what it counted, together with the nodes it sees."""
    seen = {"seen_at": session.scalar(select(db_now()))}
    counted = None if counters is None else counters.model_dump(mode="json")
    values = {"id": dispatcher_id, "num_warm_runners": num_warm_runners, "counters": counted, **seen}
    upsert(session, Dispatcher, [values], keys=("id",))
    rows = [
        {
            "id": n.id,
            "host": n.host,
            "num_cpus": n.num_cpus,
            "num_gpus": n.num_gpus,
            "is_alive": True,
            "held_by_others": [asdict(held) for held in n.foreign],
            "set_aside": n.set_aside,
            "gpu_kind": n.gpu_kind or None,
            **seen,
        }
        for n in nodes
    ]
    upsert(session, ClusterNode, rows, keys=("id",))
    gone = update(ClusterNode).where(ClusterNode.id.not_in([n.id for n in nodes]), ClusterNode.is_alive)
    session.execute(gone.values(is_alive=False))


def sign_off(session: Session, dispatcher_id: str) -> None:
    """Forget a dispatcher that has ended."""
    session.execute(delete(Dispatcher).where(Dispatcher.id == dispatcher_id))


def dispatchers(session: Session) -> Sequence[str]:
    """Return the names of all that have not signed off, dead ones too."""
    return session.scalars(select(Dispatcher.id)).all()


def live_dispatchers(session: Session) -> Sequence[Dispatcher]:
    """Return the dispatchers that were seen recently."""
    return session.scalars(select(Dispatcher).where(Dispatcher.seen_at > db_now(-DISPATCHER_SILENT_S))).all()


_LIVE_NODES = (
    select(ClusterNode)
    .where(ClusterNode.is_alive, ClusterNode.seen_at > db_now(-NODE_UNSEEN_S))
    .order_by(ClusterNode.host, ClusterNode.id)
)


def live_nodes(session: Session) -> Sequence[ClusterNode]:
    """Return the nodes that a dispatcher saw recently."""
    return session.scalars(_LIVE_NODES).all()


def hosts(session: Session, node_ids: Collection[str]) -> dict[str, str]:
    """Return the host of each of these nodes that is known, alive or not."""
    known = select(ClusterNode.id, ClusterNode.host).where(ClusterNode.id.in_(node_ids))
    return {row.id: row.host for row in session.execute(known)}


def check_feasible(session: Session, wanted: Resources) -> None:
    """Refuse a request that the cluster could not hold even if it were empty; unknown clusters pass.

    Raises:
        InfeasibleError: too many workers, GPUs or CPUs; the message says what the cluster has.
    """
    nodes = live_nodes(session)
    if not nodes:
        return
    if wanted.gpu_kind is not None:
        nodes = _of_kind(nodes, wanted.gpu_kind)
    room = sum(workers_that_fit(node.num_cpus, node.num_gpus, wanted) for node in nodes)
    if room >= wanted.num_workers:
        return
    of_kind = "" if wanted.gpu_kind is None else f" of kind {wanted.gpu_kind}"
    largest = max(nodes, key=lambda node: (node.num_gpus, node.num_cpus))
    total = f"{sum(n.num_gpus for n in nodes):g} GPUs and {sum(n.num_cpus for n in nodes):g} CPUs"
    raise InfeasibleError(
        f"{wanted.num_workers} workers of {wanted.gpus_per_worker:g} GPUs and {wanted.cpus_per_worker} CPUs don't fit: "
        f"the cluster has {len(nodes)} nodes{of_kind} with {total} in all, the largest with "
        f"{largest.num_gpus:g} GPUs and {largest.num_cpus:g} CPUs; room for {room} such workers",
        field=_field_at_fault(room, wanted, largest),
    )


def _of_kind(nodes: Sequence[ClusterNode], kind: str) -> Sequence[ClusterNode]:
    found = [node for node in nodes if node.gpu_kind == kind]
    if not found:
        kinds = sorted({node.gpu_kind for node in nodes if node.gpu_kind})
        raise InfeasibleError(
            f"gpu_kind is {kind!r}; the cluster has {', '.join(kinds) or 'none that Ray names'}",
            field="resources.gpu_kind",
        )
    return found


def workers_that_fit(num_cpus: float, num_gpus: float, wanted: Resources) -> int:
    """Return how many workers of this size one empty node holds."""
    by_cpu = int(num_cpus // wanted.cpus_per_worker)
    if wanted.gpus_per_worker == 0:
        return by_cpu
    if wanted.gpus_per_worker < 1:
        return min(by_cpu, int(num_gpus) * int(1 / wanted.gpus_per_worker + 1e-9))
    return min(by_cpu, int(num_gpus // wanted.gpus_per_worker))


def _field_at_fault(room: int, wanted: Resources, largest: ClusterNode) -> str:
    if room:
        return "resources.num_workers"
    return "resources.gpus_per_worker" if wanted.gpus_per_worker > largest.num_gpus else "resources.cpus_per_worker"
