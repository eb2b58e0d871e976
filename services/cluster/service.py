"""What is known of the cluster from SQL alone: nodes and dispatchers as last seen, and whether a job could ever fit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Self

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from xsam.services.cluster.counters import DispatcherCounters
from xsam.services.cluster.models import ClusterNode, Dispatcher
from xsam.services.cluster.traits import UNKNOWN, NodeNeeds, NodeTraits, needs_in_words, sorted_labels
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
    traits: NodeTraits = UNKNOWN
    """What it is: kind and memory of its GPUs, labels."""

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
            "gpu_kind": n.traits.gpu_kind or None,
            "gpu_memory_gb": n.traits.gpu_memory_gb or None,
            "labels": dict(n.traits.labels),
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
    for field, found, here in _NEEDED:
        nodes = _that_have(nodes, wanted, field, found, here)
    room = sum(workers_that_fit(node.num_cpus, node.num_gpus, wanted) for node in nodes)
    if room >= wanted.num_workers:
        return
    needs = needs_in_words(wanted.gpu_kind, wanted.min_gpu_memory_gb, wanted.node_labels.items())
    such = f" ({', '.join(needs)})" if needs else ""
    largest = max(nodes, key=lambda node: (node.num_gpus, node.num_cpus))
    total = f"{sum(n.num_gpus for n in nodes):g} GPUs and {sum(n.num_cpus for n in nodes):g} CPUs"
    raise InfeasibleError(
        f"{wanted.num_workers} workers of {wanted.gpus_per_worker:g} GPUs and {wanted.cpus_per_worker} CPUs don't fit: "
        f"the cluster has {len(nodes)} nodes{such} with {total} in all, the largest with "
        f"{largest.num_gpus:g} GPUs and {largest.num_cpus:g} CPUs; room for {room} such workers",
        field=_field_at_fault(room, wanted, largest),
    )


def num_suitable_nodes(session: Session, wanted: Resources) -> int | None:
    """Return on how many nodes at least one such worker fits when nothing runs there; None where none is known."""
    nodes = live_nodes(session)
    needs = NodeNeeds.of(wanted.gpu_kind, wanted.min_gpu_memory_gb, wanted.node_labels)
    suitable = [node for node in nodes if needs is None or needs.are_met_by(traits_of(node))]
    return sum(workers_that_fit(n.num_cpus, n.num_gpus, wanted) > 0 for n in suitable) if nodes else None


def _that_have(
    nodes: Sequence[ClusterNode], wanted: Resources, field: str, needs_of: _NeedsOf, here: _Here
) -> Sequence[ClusterNode]:
    """Return the nodes that have one of the things that a job asks for.

    Raises:
        InfeasibleError: none has; the message says what there is.
    """
    needs = needs_of(wanted)
    if needs is None:
        return nodes
    found = [node for node in nodes if needs.are_met_by(traits_of(node))]
    if not found:
        known = ", ".join(sorted({text for node in nodes for text in here(node)})) or "none that is known"
        raise InfeasibleError(
            f"{field} is {getattr(wanted, field)!r}, which no node has; there are: {known}", field=f"resources.{field}"
        )
    return found


def traits_of(node: ClusterNode) -> NodeTraits:
    """Return what a node is, out of its row."""
    return NodeTraits(node.gpu_kind or "", node.gpu_memory_gb or 0.0, sorted_labels(node.labels))


_NeedsOf = Callable[[Resources], NodeNeeds | None]
_Here = Callable[[ClusterNode], Iterable[str]]
_NEEDED: tuple[tuple[str, _NeedsOf, _Here], ...] = (
    (
        "gpu_kind",
        lambda wanted: NodeNeeds.of(wanted.gpu_kind, None, None),
        lambda node: [node.gpu_kind] if node.gpu_kind else [],
    ),
    (
        "min_gpu_memory_gb",
        lambda wanted: NodeNeeds.of(None, wanted.min_gpu_memory_gb, None),
        lambda node: [f"{node.gpu_memory_gb:g} GB"] if node.gpu_memory_gb else [],
    ),
    (
        "node_labels",
        lambda wanted: NodeNeeds.of(None, None, wanted.node_labels),
        lambda node: (f"{key}={value}" for key, value in sorted_labels(node.labels)),
    ),
)
"""What a job may ask of its nodes, by field, and what of that a node has."""


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
