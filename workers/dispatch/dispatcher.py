"""The dispatcher: one turn after the other it collects ended runs, expires dead leases, places due jobs."""

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version

import ray
from ray.actor import ActorHandle
from sqlalchemy.exc import DBAPIError

from xsam.services.cluster import leader
from xsam.services.cluster import service as cluster_service
from xsam.services.cluster.counters import DispatcherCounters
from xsam.services.cluster.service import DispatcherId, ForeignHolding, NodeSeen
from xsam.services.db.session import AWAY, Database
from xsam.services.jobs import draining, idle, stalled
from xsam.services.jobs.stalled import Patience
from xsam.services.reports import occupancy
from xsam.services.settings import Settings
from xsam.workers.dispatch import ray_cluster
from xsam.workers.dispatch.code_checks import CodeChecks, environment_store
from xsam.workers.dispatch.device_checks import DeviceChecks
from xsam.workers.dispatch.holdings import Holdings
from xsam.workers.dispatch.in_flight import InFlightJobs
from xsam.workers.dispatch.lab_runs import LabRuns
from xsam.workers.dispatch.notifications import NotificationRounds
from xsam.workers.dispatch.placement import JobPlacer
from xsam.workers.dispatch.ray_cluster import Amounts
from xsam.workers.dispatch.requirements_locks import RequirementsLocks
from xsam.workers.dispatch.retention import RetentionRounds
from xsam.workers.dispatch.study_runners import StudyRunners
from xsam.workers.dispatch.warm_pool import NodeProcesses
from xsam.workers.messages import RunnerConfig

log = logging.getLogger(__name__)

REPORT_INTERVAL_S = 2.0
CLEAN_UP_INTERVAL_S = 60.0
SAMPLE_INTERVAL_S = 20.0
"""A sample is taken of each minute, by whoever leads in it."""
LEASE_RENEWALS = 5
"""How often the leader renews its lease in the time it is granted for; a standby looks as often."""
DEFAULT_MAX_WARM = 4
REFUSED_PAUSE_S = 5.0
DRAIN_S = 10.0
"""How long running jobs have to write a checkpoint when the dispatcher is told to end."""


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
        self.id = str(DispatcherId(socket.gethostname(), os.getpid(), secrets.token_hex(3)))
        self._config = RunnerConfig(
            database_url=settings.database_url,
            place=settings.store_place,
            dataset_root=settings.dataset_root,
            model_root=settings.model_root,
            code_root=settings.code_root,
            environments=environment_store(settings),
            allow_download=settings.training.allow_download,
            allowed_packages=settings.training.allowed_packages,
            lease_s=settings.dispatcher.lease_s,
            is_cpu_only=settings.training.device == "cpu",
            scheduling=settings.scheduling,
            first_user_id=settings.isolation.first_user_id,
            trackers=settings.trackers,
            logs=settings.logs,
            secret_keys=settings.secrets.keys,
        )
        self._patience = Patience(
            stop_s=settings.dispatcher.cancel_grace_s,
            silence_s=settings.dispatcher.max_silence_s,
            run_s=settings.dispatcher.max_run_s,
            queue_s=settings.dispatcher.max_queue_s,
            pause_s=settings.dispatcher.max_pause_s,
        )
        self._counters = DispatcherCounters(release=version("xsam"))
        database.on_statement(self._counters.statements.observe)
        self._nodes: Sequence[NodeSeen] = ray_cluster.nodes()
        here = ray.get_runtime_context().get_node_id()
        self._processes = NodeProcesses(size=self._warm_size())
        self._studies = StudyRunners(self._config, database, owner=self.id, node_id=here)
        self._devices = DeviceChecks(self._processes.ranks, is_on=not self._config.is_cpu_only)
        self._in_flight = InFlightJobs(database, self._processes, self._studies, self._devices)
        self._placer = JobPlacer(
            settings,
            self._config,
            database,
            owner=self.id,
            in_flight=self._in_flight,
            processes=self._processes,
            studies=self._studies,
            counters=self._counters,
        )
        self._holdings = Holdings(database)
        self._checks = CodeChecks(settings, database, self._processes.ranks)
        self._locks = RequirementsLocks(settings, database)
        self._retention = RetentionRounds(settings, database)
        self._notifications = NotificationRounds(settings.notifications, database)
        self._lab = LabRuns(settings, database)
        self._stopped = threading.Event()
        self._is_leader = False
        self._lead_at = 0.0
        self._report_at = 0.0
        self._clean_up_at = 0.0
        self._sample_at = 0.0

    def run(self) -> None:
        """Take turns until stopped; a database that is away is waited for.

        Raises:
            ClusterError: the local cluster is gone, and only another dispatcher can start one.
        """
        while not self._stopped.is_set():
            try:
                self.turn()
            except AWAY as e:
                log.warning("the database did not answer, trying again: %s", str(e).splitlines()[0])
            except DBAPIError:
                log.exception("the database refused a turn, taking another in %g s", REFUSED_PAUSE_S)
                self._stopped.wait(REFUSED_PAUSE_S)
            self._stopped.wait(self._settings.dispatcher.poll_s)

    def stop(self) -> None:
        """Ask `run` to return after its turn; callable from a signal handler."""
        self._stopped.set()

    def turn(self) -> None:
        """Do one round."""
        started_s = time.perf_counter()
        self._turn()
        self._counters.turns.observe(time.perf_counter() - started_s)

    def _turn(self) -> None:
        self._in_flight.collect()
        self._report()
        is_leader = self._leads()
        self._processes.refill(self._nodes, self._in_flight.cpus_in_use(), is_leader=is_leader)
        if is_leader:
            self._studies.refill()
            self._devices.look(self._nodes)
            self._reap()
            self._placer.place(self._nodes)
            self._locks.turn()
            self._checks.turn()
            self._notifications.begin()
            self._lab.turn()
            self._sample()
            self._clean_up()

    def is_warm(self) -> bool:
        """Return whether the first job would find its processes ready."""
        return self._processes.is_warm()

    @property
    def nodes(self) -> Sequence[NodeSeen]:
        """The cluster's nodes as last seen."""
        return self._nodes

    @property
    def has_jobs_in_flight(self) -> bool:
        """Whether any job that this dispatcher started is still under way."""
        return bool(self._in_flight)

    def runner_of(self, job_id: str) -> ActorHandle:
        """Return the runner of a job under way."""
        return self._in_flight.of(job_id).runner

    def ranks_of(self, job_id: str) -> list[ActorHandle]:
        """Return the lent rank processes of a job under way, in rank order."""
        return [handle for _, handle in self._in_flight.of(job_id).ranks]

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
            for dispatcher in cluster_service.dispatchers(session):
                if _is_dead_process_here(dispatcher):
                    cluster_service.sign_off(session, dispatcher)

    def resign(self) -> None:
        """Let another dispatcher lead at once; this one stands by until it is found leading again."""
        with self._database.unit_of_work() as session:
            leader.release(session, leader.DISPATCH, self.id)
        self._is_leader = False

    def drain(self) -> None:
        """End in order. In a cluster running jobs go on; in a local one they save their state and are queued again."""
        if self._settings.ray.address is None:
            self._in_flight.send_home(within_s=DRAIN_S)
        self._processes.close()
        self._studies.close()
        self._retention.close()
        self._notifications.close()
        self.resign()
        with self._database.unit_of_work() as session:
            cluster_service.sign_off(session, self.id)

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

    def _report(self) -> None:
        if time.monotonic() < self._report_at:
            return
        nodes = ray_cluster.nodes()
        if not nodes and self._settings.ray.address is None:
            raise ray_cluster.ClusterError("the local Ray cluster has lost its only node, which does not come back")
        held = self._holdings.look({node.id: Amounts(node.num_cpus, node.num_gpus) for node in nodes})
        self._nodes = [self._known(node, held.get(node.id, ())) for node in nodes]
        if self._is_leader:
            self._holdings.sweep()
            self._empty_drained_nodes()
            self._look_for_idle()
        num_warm = self._processes.runners.num_ready
        with self._database.unit_of_work() as session:
            cluster_service.report_alive(
                session, self.id, nodes=self._nodes, num_warm_runners=num_warm, counters=self._counters
            )
        self._report_at = time.monotonic() + REPORT_INTERVAL_S

    def _known(self, node: NodeSeen, foreign: tuple[ForeignHolding, ...]) -> NodeSeen:
        """Return a node with what this dispatcher has found out of it besides; what it announces itself goes before."""
        found_gb = node.traits.gpu_memory_gb or self._devices.gpu_memory_gb(node.id)
        traits = node.traits._replace(gpu_memory_gb=found_gb)
        return replace(node, foreign=foreign, set_aside=self._devices.fault(node.id), traits=traits)

    def _empty_drained_nodes(self) -> None:
        with self._database.read() as session:
            leaving = draining.jobs_to_move(session)
        for job_id in leaving:
            with self._database.unit_of_work() as session:
                draining.ask_to_move(session, job_id)

    def _look_for_idle(self) -> None:
        usual = self._settings.idle
        with self._database.read() as session:
            found = idle.look(session, usual)
        for job_id in found:
            with self._database.unit_of_work() as session:
                idle.act(session, job_id, usual)

    def _sample(self) -> None:
        """Note once a minute how full the cluster is."""
        if time.monotonic() < self._sample_at:
            return
        self._sample_at = time.monotonic() + SAMPLE_INTERVAL_S
        with self._database.unit_of_work() as session:
            occupancy.take_sample(session)

    def _clean_up(self) -> None:
        """Delete what nobody needs any more."""
        if time.monotonic() < self._clean_up_at:
            return
        self._clean_up_at = time.monotonic() + CLEAN_UP_INTERVAL_S
        self._checks.forget_old()
        self._locks.forget_failed()
        self._notifications.forget_old()
        self._retention.begin()

    def _reap(self) -> None:
        """Act on jobs that have been in one state for too long, and end the processes of those taken back."""
        with self._database.read() as session:
            if not stalled.has_due(session, self._patience):
                return
        with self._database.unit_of_work() as session:
            ended = set(stalled.reap(session, self._patience))
        self._counters.num_leases_lost += len(ended)
        self._in_flight.end(ended)

    def _warm_size(self) -> int:
        if self._settings.dispatcher.warm_processes is not None:
            return self._settings.dispatcher.warm_processes
        return max(1, min(DEFAULT_MAX_WARM, *(int(node.num_cpus) for node in self._nodes)))


def _is_dead_process_here(owner: str) -> bool:
    """Return whether a dispatcher was a process of this machine that has ended; our own pid was another's then."""
    found = DispatcherId.parse(owner)
    if found is None or found.host != socket.gethostname():
        return False
    if found.pid == os.getpid():
        return True  # in containers every dispatcher has the same pid
    try:
        os.kill(found.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
