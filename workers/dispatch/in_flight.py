"""The jobs that a dispatcher has handed to runners, and the processes they have."""

import logging
import time
from collections.abc import Collection
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
from xsam.workers.dispatch.device_checks import DeviceChecks
from xsam.workers.dispatch.study_runners import StudyRunners
from xsam.workers.dispatch.warm_pool import NodeProcesses
from xsam.workers.messages import RunnerOutcome, sentence

log = logging.getLogger(__name__)

NodeProcess = tuple[str, ActorHandle]
"""A process and the node it lives on."""


@dataclass(frozen=True, slots=True)
class InFlightJob:
    """A job under way."""

    claimed: ClaimedJob
    runner: ActorHandle
    """Of a trial, it is its study's and runs others too."""
    runner_node: str = ""
    ranks: tuple[NodeProcess, ...] = ()
    """Lent rank processes with their nodes."""
    placement: tuple[str, ...] = ()
    """The node of each worker; empty for a study."""
    has_devices: bool = False
    """Its ranks compute on GPUs, which a process keeps for its life."""

    @property
    def lease(self) -> Lease:
        """The right to run it."""
        return self.claimed.lease

    @property
    def can_lend_again(self) -> bool:
        """Whether its rank processes fit other jobs: they hold no GPUs and have run none of a team's own code."""
        spec = self.claimed.job_spec
        is_foreign = spec.code is not None or spec.task is not None or "custom" in (spec.model.name, spec.dataset.name)
        return not (self.has_devices or is_foreign)


class InFlightJobs:
    """The jobs of one dispatcher; processes go back to their pools after an end in order, and end otherwise.

    Args:
        database: where a runner's death is told.
        processes: where runners and ranks come from.
        studies: where runners of studies come from.
        devices: is told of nodes on whose GPUs a run has failed.
    """

    def __init__(
        self, database: Database, processes: NodeProcesses, studies: StudyRunners, devices: DeviceChecks
    ) -> None:
        self._database = database
        self._processes = processes
        self._studies = studies
        self._devices = devices
        self._in_flight: dict[ray.ObjectRef, InFlightJob] = {}

    def __bool__(self) -> bool:
        return bool(self._in_flight)

    def of(self, job_id: str) -> InFlightJob:
        """Return a job under way."""
        return next(job for job in self._in_flight.values() if job.lease.job_id == job_id)

    def add(self, ref: ray.ObjectRef, job: InFlightJob) -> None:
        """Remember a job handed to a runner, whose end `ref` tells."""
        self._in_flight[ref] = job

    def cpus_in_use(self) -> dict[str, float]:
        """Return what the jobs under way hold, by node."""
        in_use: dict[str, float] = {}
        for job in self._in_flight.values():
            for node_id in job.placement:
                in_use[node_id] = in_use.get(node_id, 0.0) + job.claimed.job_spec.resources.cpus_per_worker
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
        if job.claimed.kind == KIND_STUDY:
            self._end(job)
            return
        if outcome is RunnerOutcome.DEVICES_FAILED:
            for node_id in set(job.placement):
                self._devices.doubt(node_id)
        if job.claimed.kind != KIND_TRIAL:
            self._processes.runners.give_back(job.runner_node, job.runner)
        for node_id, rank in job.ranks:
            if outcome is RunnerOutcome.RANKS_CLEAN and job.can_lend_again:
                self._processes.ranks.give_back(node_id, rank)
            else:
                ray.kill(rank)

    def _end(self, job: InFlightJob) -> None:
        for _, rank in job.ranks:
            ray.kill(rank)
        if job.claimed.kind == KIND_TRIAL:
            return
        ray.kill(job.runner)
        if job.claimed.kind == KIND_STUDY:
            self._studies.lose(job.lease.job_id)

    def _release(self, lease: Lease) -> None:
        try:
            with self._database.unit_of_work() as session:
                message = "its dispatcher shut down"
                queue.release(session, lease, outcome=FailureKind.PREEMPTED, message=message)
        except LeaseLostError:
            log.info("job %s ended before it could be given back", lease.job_id)
