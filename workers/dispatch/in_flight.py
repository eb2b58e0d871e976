"""Flights: the jobs a dispatcher has handed to runners, and the processes they have."""

import logging
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError

from xsam.services.db.session import Database
from xsam.services.errors import LeaseLostError
from xsam.services.jobs import queue, stalled, wishes
from xsam.services.jobs.models import KIND_STUDY, KIND_TRIAL
from xsam.services.jobs.queue import ClaimedJob, Lease
from xsam.services.jobs.states import FailureKind
from xsam.workers.dispatch.node_processes import Crew
from xsam.workers.ray_errors import sentence
from xsam.workers.runner.attempt import RunnerOutcome

log = logging.getLogger(__name__)

NodeProcess = tuple[str, ActorHandle]
"""A process and the node it lives on."""


@dataclass(frozen=True, slots=True)
class Flight:
    """A job under way."""

    lease: Lease
    runner: ActorHandle
    runner_node: str
    ranks: tuple[NodeProcess, ...]
    """Lent rank processes with their nodes."""
    has_foreign_code: bool
    """The job ran a team's own code, so its processes are not lent again."""
    kind: str
    """Of a trial, the runner is its study's and runs others too."""
    placement: tuple[str, ...]
    """The node of each worker; empty for a study."""
    cpus_per_worker: float


class Flights:
    """The flights of one dispatcher; processes go back to their pools after a landing in order, and end otherwise.

    Args:
        database: where a runner's death is told.
        crew: where the processes come from.
    """

    def __init__(self, database: Database, crew: Crew) -> None:
        self._database = database
        self._crew = crew
        self._flights: dict[ray.ObjectRef, Flight] = {}

    def __bool__(self) -> bool:
        return bool(self._flights)

    def of(self, job_id: str) -> Flight:
        """Return the flight of a job under way."""
        return next(flight for flight in self._flights.values() if flight.lease.job_id == job_id)

    def add(
        self,
        ref: ray.ObjectRef,
        claimed: ClaimedJob,
        runner: ActorHandle,
        node_id: str = "",
        ranks: Sequence[NodeProcess] = (),
        placement: Sequence[str] = (),
    ) -> None:
        """Remember a job handed to a runner, whose end `ref` tells."""
        parts = [claimed.spec.get(name, {}) for name in ("model", "dataset")]
        has_foreign_code = any(part.get("name") == "custom" for part in parts)
        self._flights[ref] = Flight(
            claimed.lease,
            runner,
            node_id,
            tuple(ranks),
            has_foreign_code,
            claimed.kind,
            tuple(placement),
            claimed.spec.get("resources", {}).get("cpus_per_worker", 0.0),
        )

    def cpus_in_use(self) -> dict[str, float]:
        """Return what the jobs under way hold, by node."""
        in_use: dict[str, float] = {}
        for flight in self._flights.values():
            for node_id in flight.placement:
                in_use[node_id] = in_use.get(node_id, 0.0) + flight.cpus_per_worker
        return in_use

    def collect(self) -> None:
        """Take back the processes of runs that ended; never waits."""
        if not self._flights:
            return
        done, _ = ray.wait(list(self._flights), num_returns=len(self._flights), timeout=0)
        for ref in done:
            self._land(ref, self._flights.pop(ref))

    def end(self, leases: Collection[Lease]) -> None:
        """End the processes of jobs that were taken back."""
        for ref, flight in list(self._flights.items()):
            if flight.lease in leases:
                self._end(flight)
                del self._flights[ref]

    def send_home(self, *, within_s: float) -> None:
        """Have all jobs save their state and queue again; those that take longer are ended and given back."""
        with self._database.unit_of_work() as session:
            for flight in self._flights.values():
                wishes.request_preemption(session, flight.lease.job_id, reason="its dispatcher shuts down")
        deadline = time.monotonic() + within_s
        while self._flights and time.monotonic() < deadline:
            ray.wait(list(self._flights), timeout=deadline - time.monotonic())
            self.collect()
        for flight in self._flights.values():
            self._end(flight)
            self._release(flight.lease)
        self._flights.clear()

    def _land(self, ref: ray.ObjectRef, flight: Flight) -> None:
        try:
            outcome = RunnerOutcome(ray.get(ref))
        except RayError as e:
            self._end(flight)
            with self._database.unit_of_work() as session:
                stalled.fail_infrastructure(session, flight.lease, message=f"the runner died: {sentence(e)}")
            return
        if flight.kind == KIND_STUDY:
            self._end(flight)
            return
        if flight.kind != KIND_TRIAL:
            self._crew.runners.give_back(flight.runner_node, flight.runner)
        for node_id, rank in flight.ranks:
            if outcome is RunnerOutcome.RANKS_CLEAN and not flight.has_foreign_code:
                self._crew.ranks.give_back(node_id, rank)
            else:
                ray.kill(rank)

    def _end(self, flight: Flight) -> None:
        for _, rank in flight.ranks:
            ray.kill(rank)
        if flight.kind == KIND_TRIAL:
            return
        ray.kill(flight.runner)
        if flight.kind == KIND_STUDY:
            self._crew.studies.lose(flight.lease.job_id)

    def _release(self, lease: Lease) -> None:
        try:
            with self._database.unit_of_work() as session:
                message = "its dispatcher shut down"
                queue.release(session, lease, outcome=FailureKind.PREEMPTED, message=message)
        except LeaseLostError:
            log.info("job %s ended before it could be given back", lease.job_id)
