"""The crew: a dispatcher's processes that are ready for the next job."""

import time
from collections.abc import Mapping, Sequence

from xsam.services.cluster.service import NodeSeen
from xsam.services.db.session import Database
from xsam.workers.actors import RankActor, RunnerActor
from xsam.workers.dispatch.study_runners import StudyRunners
from xsam.workers.dispatch.warm_pool import WarmPool
from xsam.workers.messages import RunnerConfig

REST_S = 60.0
"""After a node has become full, until ranks are started there for those at work. A start takes seconds of a
processor from them, and nobody could use it before one of them ends and comes back. One that doesn't is replaced."""


class NodeProcesses:
    """Warm runners and ranks on each node, and the runners of studies on one.

    Args:
        config: what runners are told about the service.
        database: the dispatcher's.
        owner: the dispatcher's name.
        home: id of the node where studies' runners live.
        size: idle runners and ranks to keep on each node.
    """

    def __init__(self, config: RunnerConfig, database: Database, *, owner: str, home: str, size: int) -> None:
        self._size = size
        self.runners = WarmPool(RunnerActor, "runner", size=size)
        self.ranks = WarmPool(RankActor, "rank", size=size)
        self.studies = StudyRunners(config, database, owner=owner, node_id=home)
        self._full_since: dict[str, float] = {}

    def refill(self, nodes: Sequence[NodeSeen], cpus_in_use: Mapping[str, float]) -> None:
        """Start what is missing, but for ranks on nodes that have just become full; never waits.

        Args:
            nodes: all that are alive.
            cpus_in_use: what this dispatcher's jobs hold, by node.
        """
        now = time.monotonic()
        full = [node.id for node in nodes if node.num_cpus - 1.0 < cpus_in_use.get(node.id, 0.0)]
        self._full_since = {node_id: self._full_since.get(node_id, now) for node_id in full}
        node_ids = [node.id for node in nodes]
        self.runners.refill(node_ids)
        self.ranks.refill(node_ids, resting={n for n, since in self._full_since.items() if now - since < REST_S})
        self.studies.refill()

    def is_warm(self) -> bool:
        """Return whether the first job would find its processes ready."""
        return self.runners.num_ready >= self._size and self.ranks.num_ready >= self._size

    def close(self) -> None:
        """End all idle processes."""
        self.runners.close()
        self.ranks.close()
        self.studies.close()
