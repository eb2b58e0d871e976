"""The crew: a dispatcher's processes that are ready for the next job."""

from collections.abc import Sequence

from services.cluster.service import NodeSeen
from services.db.session import Database
from workers.actors import RankActor, RunnerActor
from workers.assignment import RunnerConfig
from workers.pool import WarmPool
from workers.tuning.fleet import StudyFleet


class Crew:
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
        self.studies = StudyFleet(config, database, owner=owner, node_id=home)

    def refill(self, nodes: Sequence[NodeSeen]) -> None:
        """Start what is missing; never waits."""
        node_ids = [node.id for node in nodes]
        self.runners.refill(node_ids)
        self.ranks.refill(node_ids)
        self.studies.refill()

    def is_warm(self) -> bool:
        """Return whether the first job would find its processes ready."""
        return self.runners.num_ready >= self._size and self.ranks.num_ready >= self._size

    def close(self) -> None:
        """End all idle processes."""
        self.runners.close()
        self.ranks.close()
        self.studies.close()
