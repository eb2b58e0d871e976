"""The dispatcher: one turn after the other it collects ended runs, expires dead leases, places due jobs."""

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError
from sqlalchemy.exc import DBAPIError

from services.artifacts import retention
from services.cluster import leader
from services.cluster import service as cluster_service
from services.cluster.service import NodeSeen
from services.db.session import Database
from services.errors import LeaseLostError
from services.jobs import events, queue, requests, stalled
from services.jobs.models import KIND_STUDY, KIND_TRIAL
from services.jobs.queue import ClaimedJob, Lease
from services.jobs.stalled import Patience
from services.jobs.states import FailureKind
from services.scheduling import service as scheduling
from services.scheduling import view
from services.scheduling.policy import plan
from services.scheduling.types import Explanations, Placement, Plan, Snapshot
from services.settings import Settings
from services.specs.job import JobSpec
from workers import cluster
from workers.assignment import RunnerConfig
from workers.job_run import RunnerOutcome
from workers.pool import WarmPool
from workers.rank import RankActor
from workers.ray_errors import sentence
from workers.runner import RunnerActor
from workers.tuning.fleet import StudyFleet

log = logging.getLogger(__name__)

REPORT_INTERVAL_S = 2.0
PUBLISH_INTERVAL_S = 1.0
REPLAN_INTERVAL_S = 1.0
CLEAN_UP_INTERVAL_S = 60.0
LEASE_RENEWALS = 5
"""How often the leader renews its lease in the time it is granted for; a standby looks as often."""
DEFAULT_MAX_WARM = 4
DRAIN_S = 10.0
"""How long running jobs have to write a checkpoint when the dispatcher is told to end."""


@dataclass(frozen=True, slots=True)
class _Flight:
    """A job that this dispatcher has handed to a runner."""

    lease: Lease
    runner: ActorHandle
    runner_node: str
    ranks: tuple[tuple[str, ActorHandle], ...]
    """Lent rank processes with their nodes."""
    has_foreign_code: bool
    """The job ran a team's own code, so its processes are not lent again."""
    kind: str
    """Of a trial, the runner is its study's and runs others too."""


class Dispatcher:
    """Places jobs on the cluster. `turn` does one round and never waits long; `run` repeats it.

    Ray must be connected. All methods belong to one thread, but for `stop`.

    Args:
        settings: the service's settings.
        database: opened by the caller, migrated.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self.id = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
        self._config = RunnerConfig(
            database_url=settings.database_url,
            artifact_root=settings.artifact_root,
            dataset_root=settings.dataset_root,
            allow_download=settings.training.allow_download,
            allowed_packages=settings.training.allowed_packages,
            lease_s=settings.dispatcher.lease_s,
        )
        self._patience = Patience(
            stop_s=settings.dispatcher.cancel_grace_s,
            silence_s=settings.dispatcher.max_silence_s,
            run_s=settings.dispatcher.max_run_s,
            queue_s=settings.dispatcher.max_queue_s,
            pause_s=settings.dispatcher.max_pause_s,
        )
        self._nodes: Sequence[NodeSeen] = cluster.nodes()
        size = self._warm_size()
        self._runners = WarmPool(RunnerActor, "runner", size=size)
        self._ranks = WarmPool(RankActor, "rank", size=size)
        here = ray.get_runtime_context().get_node_id()
        self._studies = StudyFleet(self._config, database, owner=self.id, node_id=here)
        self._flights: dict[ray.ObjectRef, _Flight] = {}
        self._stopped = threading.Event()
        self._is_leader = False
        self._lead_at = 0.0
        self._report_at = 0.0
        self._publish_at = 0.0
        self._settled_at_event: int | None = None
        self._settled_until = 0.0
        self._clean_up_at = 0.0
        self._holders: tuple[str, ...] = ()
        self._infeasible_since: dict[str, float] = {}

    def run(self) -> None:
        """Take turns until stopped; a database that is away is waited for."""
        while not self._stopped.is_set():
            try:
                self.turn()
            except DBAPIError as e:
                log.warning("the database did not answer, trying again: %s", str(e).splitlines()[0])
            self._stopped.wait(self._settings.dispatcher.poll_s)

    def stop(self) -> None:
        """Ask `run` to return after its turn; callable from a signal handler."""
        self._stopped.set()

    def turn(self) -> None:
        """Do one round."""
        self._collect()
        self._report()
        node_ids = [node.id for node in self._nodes]
        self._runners.refill(node_ids)
        self._ranks.refill(node_ids)
        self._studies.refill()
        if self._leads():
            self._reap()
            self._place()
            self._clean_up()

    def is_warm(self) -> bool:
        """Return whether the first job would find its processes ready."""
        size = self._warm_size()
        return self._runners.num_ready >= size and self._ranks.num_ready >= size

    @property
    def nodes(self) -> Sequence[NodeSeen]:
        """The cluster's nodes as last seen."""
        return self._nodes

    @property
    def has_flights(self) -> bool:
        """Whether any job that this dispatcher started is still under way."""
        return bool(self._flights)

    def runner_of(self, job_id: str) -> ActorHandle:
        """Return the runner of a job under way."""
        return self._flight_of(job_id).runner

    def ranks_of(self, job_id: str) -> list[ActorHandle]:
        """Return the lent rank processes of a job under way, in rank order."""
        return [handle for _, handle in self._flight_of(job_id).ranks]

    def _flight_of(self, job_id: str) -> _Flight:
        return next(flight for flight in self._flights.values() if flight.lease.job_id == job_id)

    def recover(self) -> None:
        """Take back at once what an earlier dispatcher of this machine left in a local cluster that died with it."""
        if self._settings.ray.address is not None:
            return  # runners in a cluster outlive their dispatcher; their leases tell
        with self._database.unit_of_work() as session:
            for lease, owner in stalled.running_leases(session):
                if _is_dead_process_here(owner):
                    stalled.fail_infrastructure(session, lease, message=f"dispatcher {owner} died with its local Ray")
            former = leader.current(session, leader.DISPATCH)
            if former is not None and _is_dead_process_here(former):
                leader.release(session, leader.DISPATCH, former)

    def resign(self) -> None:
        """Let another dispatcher lead at once; this one stands by until it is found leading again."""
        with self._database.unit_of_work() as session:
            leader.release(session, leader.DISPATCH, self.id)
        self._is_leader = False

    def drain(self) -> None:
        """End in order. In a cluster running jobs go on; in a local one they save their state and are queued again."""
        if self._settings.ray.address is None:
            self._send_home()
        self._runners.close()
        self._ranks.close()
        self._studies.close()
        self.resign()
        with self._database.unit_of_work() as session:
            cluster_service.sign_off(session, self.id)

    def _send_home(self) -> None:
        with self._database.unit_of_work() as session:
            for flight in self._flights.values():
                requests.request_preemption(session, flight.lease.job_id, reason="its dispatcher shuts down")
        deadline = time.monotonic() + DRAIN_S
        while self._flights and time.monotonic() < deadline:
            ray.wait(list(self._flights), timeout=deadline - time.monotonic())
            self._collect()
        for flight in self._flights.values():
            self._end_flight(flight)
            self._release(flight.lease)
        self._flights.clear()

    def _leads(self) -> bool:
        """Return whether this dispatcher is the one that acts; the others stand by with warm processes."""
        if time.monotonic() >= self._lead_at:
            lease_s = self._settings.dispatcher.lease_s
            with self._database.unit_of_work() as session:
                is_leader = leader.acquire(session, leader.DISPATCH, self.id, lease_s=lease_s)
            if is_leader != self._is_leader:
                log.info("%s", "leading" if is_leader else "standing by: another dispatcher leads")
            self._is_leader = is_leader
            self._lead_at = time.monotonic() + lease_s / LEASE_RENEWALS
        return self._is_leader

    def _collect(self) -> None:
        """Take back the processes of runs that ended."""
        if not self._flights:
            return
        done, _ = ray.wait(list(self._flights), num_returns=len(self._flights), timeout=0)
        for ref in done:
            self._land(ref, self._flights.pop(ref))

    def _land(self, ref: ray.ObjectRef, flight: _Flight) -> None:
        try:
            outcome = RunnerOutcome(ray.get(ref))
        except RayError as e:
            self._end_flight(flight)
            self._fail(flight.lease, f"the runner died: {sentence(e)}")
            return
        if flight.kind == KIND_STUDY:
            self._end_flight(flight)
            return
        if flight.kind != KIND_TRIAL:
            self._runners.give_back(flight.runner_node, flight.runner)
        for node_id, rank in flight.ranks:
            if outcome is RunnerOutcome.RANKS_CLEAN and not flight.has_foreign_code:
                self._ranks.give_back(node_id, rank)
            else:
                ray.kill(rank)

    def _report(self) -> None:
        if time.monotonic() < self._report_at:
            return
        self._nodes = cluster.nodes()
        num_warm = self._runners.num_ready
        with self._database.unit_of_work() as session:
            cluster_service.report_alive(session, self.id, nodes=self._nodes, num_warm_runners=num_warm)
        self._report_at = time.monotonic() + REPORT_INTERVAL_S

    def _clean_up(self) -> None:
        """Delete what nobody needs any more, a few jobs at a time."""
        if time.monotonic() < self._clean_up_at:
            return
        self._clean_up_at = time.monotonic() + CLEAN_UP_INTERVAL_S
        with self._database.read() as session:
            outdated = retention.find_outdated(session, keep_days=self._settings.artifacts.checkpoint_keep_days)
        for job_id in outdated:
            with self._database.unit_of_work() as session:
                retention.forget(session, self._settings.artifact_root, job_id)

    def _reap(self) -> None:
        """Act on jobs that have been in one state for too long, and end the processes of those taken back."""
        with self._database.read() as session:
            if not stalled.has_due(session, self._patience):
                return
        with self._database.unit_of_work() as session:
            ended = set(stalled.reap(session, self._patience))
        for ref, flight in list(self._flights.items()):
            if flight.lease in ended:
                self._end_flight(flight)
                del self._flights[ref]

    def _place(self) -> None:
        with self._database.read() as session:
            if not queue.has_queued(session):
                return
        self._start_studies()
        with self._database.read() as session:
            newest = events.newest(session)
            if newest == self._settled_at_event and time.monotonic() < self._settled_until:
                return
            snapshot = scheduling.take_snapshot(session, self._nodes, holders=self._holders)
        decision = plan(snapshot)
        self._holders = decision.holders
        takers = self._studies.runners_of([placed.job_id for placed in decision.placements])
        for placed in decision.placements:
            if placed.job_id in takers:
                self._start_trial(placed, takers[placed.job_id])
            else:
                self._start(placed)
        for preemption in decision.preemptions:
            with self._database.unit_of_work() as session:
                reason = f"job {preemption.for_job_id} of higher priority needs its place"
                requests.request_preemption(session, preemption.victim_job_id, reason=reason)
        self._fail_infeasible(decision.reasons)
        self._publish(snapshot, decision)
        # A plan that changes nothing is worth repeating only when something has happened, or time has passed.
        self._settled_at_event = None if decision.placements or decision.preemptions else newest
        self._settled_until = time.monotonic() + REPLAN_INTERVAL_S

    def _publish(self, snapshot: Snapshot, decision: Plan) -> None:
        """Let people read why jobs wait."""
        if time.monotonic() < self._publish_at:
            return
        with self._database.unit_of_work() as session:
            view.publish(session, snapshot, decision)
        self._publish_at = time.monotonic() + PUBLISH_INTERVAL_S

    def _start(self, placed: Placement) -> None:
        home = placed.node_ids[0]
        if not self._runners.has_ready(home):
            return  # a claim starts the lease, so it waits for somebody who can renew it
        runner = self._runners.take(home)
        claimed = self._claim(placed)
        if claimed is None:
            self._runners.give_back(home, runner)
            return
        ranks = self._lend_ranks(claimed, placed.node_ids)
        handles = [handle for _, handle in ranks]
        ref = runner.run.remote(self._config, claimed, handles, list(placed.node_ids))
        self._flights[ref] = _flight(claimed, runner, home, ranks)

    def _start_studies(self) -> None:
        for ref, claimed, runner in self._studies.start_due():
            self._flights[ref] = _flight(claimed, runner, "", [])

    def _start_trial(self, placed: Placement, runner: ActorHandle | None) -> None:
        """Give a place to a trial: its study's runner, which lives already, runs it there."""
        if runner is None:
            return
        claimed = self._claim(placed)
        if claimed is None:
            return
        ranks = self._lend_ranks(claimed, placed.node_ids)
        ref = runner.run_trial.remote(claimed, [handle for _, handle in ranks], list(placed.node_ids))
        self._flights[ref] = _flight(claimed, runner, "", ranks)

    def _claim(self, placed: Placement) -> ClaimedJob | None:
        with self._database.unit_of_work() as session:
            return queue.claim(
                session,
                placed.job_id,
                runner=self.id,
                lease_s=self._settings.dispatcher.lease_s,
                placement=placed.node_ids,
            )

    def _lend_ranks(self, claimed: ClaimedJob, node_ids: Sequence[str]) -> list[tuple[str, ActorHandle]]:
        """Return the processes a run gets: one per worker on CPUs, a single driver for a GPU worker group, else none.

        A process sees the GPUs it was started with, so a warm one (started with none) can't train on a GPU.
        """
        resources = JobSpec.model_validate(claimed.spec).resources
        needs_group = resources.gpus_per_worker > 0 or self._settings.ray.worker_groups == "managed"
        if not needs_group:
            return [(node_id, self._ranks.take(node_id)) for node_id in node_ids]
        if resources.num_workers > 1:
            return [(node_ids[0], self._ranks.take(node_ids[0]))]
        return [] if resources.gpus_per_worker else [(node_ids[0], self._ranks.take(node_ids[0]))]

    def _fail_infeasible(self, reasons: Explanations) -> None:
        """Fail jobs that have been too large for the whole cluster for a while; a node may only be rebooting."""
        now = time.monotonic()
        self._infeasible_since = {job_id: self._infeasible_since.get(job_id, now) for job_id in reasons.infeasible}
        for job_id, since in self._infeasible_since.items():
            if now - since < self._settings.dispatcher.infeasible_grace_s:
                continue
            with self._database.unit_of_work() as session:
                message = reasons[job_id].sentence()
                queue.fail_idle(session, job_id, kind=FailureKind.INFEASIBLE, message=message)

    def _end_flight(self, flight: _Flight) -> None:
        for _, rank in flight.ranks:
            ray.kill(rank)
        if flight.kind == KIND_TRIAL:
            return
        ray.kill(flight.runner)
        if flight.kind == KIND_STUDY:
            self._studies.lose(flight.lease.job_id)

    def _fail(self, lease: Lease, message: str) -> None:
        with self._database.unit_of_work() as session:
            stalled.fail_infrastructure(session, lease, message=message)

    def _release(self, lease: Lease) -> None:
        try:
            with self._database.unit_of_work() as session:
                message = "its dispatcher shut down"
                queue.release(session, lease, outcome=FailureKind.PREEMPTED, message=message)
        except LeaseLostError:
            log.info("job %s ended before it could be given back", lease.job_id)

    def _warm_size(self) -> int:
        if self._settings.dispatcher.warm_processes is not None:
            return self._settings.dispatcher.warm_processes
        return max(1, min(DEFAULT_MAX_WARM, *(int(node.num_cpus) for node in self._nodes)))


def _flight(
    claimed: ClaimedJob, runner: ActorHandle, node_id: str, ranks: Sequence[tuple[str, ActorHandle]]
) -> _Flight:
    parts = [claimed.spec.get(name, {}) for name in ("model", "dataset")]
    has_foreign_code = any(part.get("name") == "custom" for part in parts)
    return _Flight(claimed.lease, runner, node_id, tuple(ranks), has_foreign_code, claimed.kind)


def _is_dead_process_here(owner: str) -> bool:
    """Return whether `HOST:PID:...` names a process of this machine that has ended; our own pid was another's then."""
    host, pid, *_ = [*owner.split(":"), ""]
    if host != socket.gethostname() or not pid.isdecimal():
        return False
    if int(pid) == os.getpid():
        return True  # in containers every dispatcher has the same pid
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
