"""The Ray actor of a rank. It is light to define; its process loads the training code when it starts.

Dispatcher and runners only hold handles of this class. Were the training code imported here, each of them would carry
torch (seconds of start, hundreds of megabytes) for nothing: hence the one late import of this room.
"""

import importlib
import socket

import ray
from ray.actor import ActorHandle

from workers.assignment import Assignment, RankResult

_TRAINING_CODE = "workers.rank_run"


class RankWorker:
    """Takes one assignment after the other. The process is warm when the constructor has returned."""

    def __init__(self) -> None:
        self._code = importlib.import_module(_TRAINING_CODE)
        self._code.warm_up()

    def ready(self) -> str:
        """Return the Ray node of this process; also the sign that it is warm."""
        return ray.get_runtime_context().get_node_id()

    def rendezvous_address(self) -> str:
        """Return `HOST:PORT` with a port that is free on this node right now."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return f"{ray.util.get_node_ip_address()}:{probe.getsockname()[1]}"

    def run(self, assignment: Assignment, runner: ActorHandle) -> RankResult:
        """Be one rank of a run, in this process."""
        return self._code.run_here(assignment, runner)

    def run_group(self, assignment: Assignment, runner: ActorHandle) -> RankResult:
        """Drive a worker group that Ray Train places and starts; returns the result that speaks for all ranks."""
        return self._code.run_group(assignment, runner)


RankActor = ray.remote(RankWorker)
