"""The jobs that a dispatcher has handed to runners, and the processes they have."""

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
from xsam.workers.dispatch.node_processes import NodeProcesses
from xsam.workers.ray_errors import sentence
from xsam.workers.runner.attempt import RunnerOutcome

log = logging.getLogger(__name__)

NodeProcess = tuple[str, ActorHandle]
"""A process and the node it lives on."""


@dataclass(frozen=True, slots=True)
class InFlightJob:
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


class InFlightJobs:
    """The jobs of one dispatcher; processes go back to their pools after an end in order, and end otherwise.

    Args:
        database: where a runner's death is told.
        processes: where the processes come from.
    """

    def __init__(self, database: Database, processes: NodeProcesses) -> None:
        self._database = database
        self._processes = processes
        self._in_flight: dict[ray.ObjectRef, InFlightJob] = {}

    def __bool__(self) -> bool:
        return bool(self._in_flight)

    def of(self, job_id: str) -> InFlightJob:
        """Return a job under way."""
        return next(job for job in self._in_flight.values() if job.lease.job_id == job_id)

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
        self._in_flight[ref] = InFlightJob(
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
        for job in self._in_flight.values():
            for node_id in job.placement:
                in_use[node_id] = in_use.get(node_id, 0.0) + job.cpus_per_worker
        return in_use

    def collect(self) -> None:
        """Take back the processes of runs that ended; never waits."""
        if not self._in_flight:
            return
        done, _ = ray.wait(list(self._in_flight), num_returns=len(self._in_flight), timeout=0)
        for ref in done:
            self._take_back(ref, self._in_flight.pop(ref))

    def end(self, leases: Collection[Lease]) -> None:
        """End the processes of jobs that were taken back."""
        for ref, job in list(self._in_flight.items()):
            if job.lease in leases:
                self._end(job)
                del self._in_flight[ref]

    def send_home(self, *, within_s: float) -> None:
        """Have all jobs save their state and queue again; those that take longer are ended and given back."""
        with self._database.unit_of_work() as session:
            for job in self._in_flight.values():
                wishes.request_preemption(session, job.lease.job_id, reason="its dispatcher shuts down")
        deadline = time.monotonic() + within_s
        while self._in_flight and time.monotonic() < deadline:
            ray.wait(list(self._in_flight), timeout=deadline - time.monotonic())
            self.collect()
        for job in self._in_flight.values():
            self._end(job)
            self._release(job.lease)
        self._in_flight.clear()

    def _take_back(self, ref: ray.ObjectRef, job: InFlightJob) -> None:
        try:
            outcome = RunnerOutcome(ray.get(ref))
        except RayError as e:
            self._end(job)
            with self._database.unit_of_work() as session:
                stalled.fail_infrastructure(session, job.lease, message=f"the runner died: {sentence(e)}")
            return
        if job.kind == KIND_STUDY:
            self._end(job)
            return
        if job.kind != KIND_TRIAL:
            self._processes.runners.give_back(job.runner_node, job.runner)
        for node_id, rank in job.ranks:
            if outcome is RunnerOutcome.RANKS_CLEAN and not job.has_foreign_code:
                self._processes.ranks.give_back(node_id, rank)
            else:
                ray.kill(rank)

    def _end(self, job: InFlightJob) -> None:
        for _, rank in job.ranks:
            ray.kill(rank)
        if job.kind == KIND_TRIAL:
            return
        ray.kill(job.runner)
        if job.kind == KIND_STUDY:
            self._processes.studies.lose(job.lease.job_id)

    def _release(self, lease: Lease) -> None:
        try:
            with self._database.unit_of_work() as session:
                message = "its dispatcher shut down"
                queue.release(session, lease, outcome=FailureKind.PREEMPTED, message=message)
        except LeaseLostError:
            log.info("job %s ended before it could be given back", lease.job_id)
