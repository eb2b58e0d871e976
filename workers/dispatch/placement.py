"""Placement: plans over the waiting jobs and hands those that got a place to runners."""

import time
from collections import Counter
from collections.abc import Sequence

from ray.actor import ActorHandle

from xsam.services.cluster import cordons
from xsam.services.cluster.counters import DispatcherCounters
from xsam.services.cluster.service import NodeSeen
from xsam.services.db.session import Database
from xsam.services.jobs import events, queue, wishes
from xsam.services.jobs.queue import ClaimedJob
from xsam.services.jobs.states import FailureKind
from xsam.services.scheduling import last_decision
from xsam.services.scheduling import snapshot as scheduling
from xsam.services.scheduling.policy.explain import Reasons
from xsam.services.scheduling.policy.plan import Plan, plan
from xsam.services.scheduling.policy.types import Placement, Snapshot
from xsam.services.scheduling.run_times import RunTimes
from xsam.services.scheduling.seen import SeenJobs
from xsam.services.settings import Settings
from xsam.services.studies import trials
from xsam.workers.dispatch.in_flight import InFlightJob, InFlightJobs, NodeProcess
from xsam.workers.dispatch.study_runners import StudyRunners
from xsam.workers.dispatch.warm_pool import NodeProcesses
from xsam.workers.messages import RunnerConfig

PUBLISH_INTERVAL_S = 1.0
REPLAN_INTERVAL_S = 1.0


class JobPlacer:
    """Places jobs in the name of the leading dispatcher.

    Args:
        settings: the service's settings.
        config: what runners are told about the service.
        database: where jobs wait.
        owner: the dispatcher's name.
        in_flight: where jobs handed to runners are kept.
        processes: where runners and ranks come from.
        studies: where runners of studies come from.
        counters: what the dispatcher counts.
    """

    def __init__(  # noqa: PLR0913 - what a dispatcher is made of
        self,
        settings: Settings,
        config: RunnerConfig,
        database: Database,
        *,
        owner: str,
        in_flight: InFlightJobs,
        processes: NodeProcesses,
        studies: StudyRunners,
        counters: DispatcherCounters,
    ) -> None:
        self._settings = settings
        self._config = config
        self._database = database
        self._owner = owner
        self._in_flight = in_flight
        self._processes = processes
        self._studies = studies
        self._counters = counters
        self._publish_at = 0.0
        self._settled_at_event: int | None = None
        self._settled_until = 0.0
        self._holders: tuple[str, ...] = ()
        self._infeasible_since: dict[str, float] = {}
        self._silent: set[str] = set()
        self._run_times = RunTimes()
        self._seen = SeenJobs()

    def place(self, nodes: Sequence[NodeSeen]) -> None:
        """Make one plan over the nodes and act on it, if anything could have changed since the last."""
        with self._database.read() as session:
            if not queue.has_queued(session):
                return
            # A study's runner holds no node, so the plan does not keep it from starting.
            due_studies = () if cordons.read(session).maintenance else trials.due_studies(session)
        for ref, claimed, runner in self._studies.start(due_studies):
            self._in_flight.add(ref, InFlightJob(claimed, runner))
        self._silent = {node_id for node_id in self._silent if not self._processes.runners.has_ready(node_id)}
        with self._database.read() as session:
            newest = events.newest(session)
            if newest == self._settled_at_event and time.monotonic() < self._settled_until:
                return
            started_s = time.perf_counter()
            snapshot = scheduling.take_snapshot(
                session,
                nodes,
                silent=self._silent,
                holders=self._holders,
                takers=trials.has_takers(),
                run_times=self._run_times,
                seen=self._seen,
            )
        decision = plan(snapshot, self._settings.scheduling)
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
                wishes.request_preemption(session, preemption.victim_job_id, reason=reason)
        self._fail_infeasible(decision.reasons)
        self._publish(snapshot, decision)
        # A plan that changes nothing is worth repeating only when something has happened, or time has passed.
        self._settled_at_event = None if decision.placements or decision.preemptions else newest
        self._settled_until = time.monotonic() + REPLAN_INTERVAL_S
        self._counters.num_preemptions += len(decision.preemptions)
        self._counters.decisions.observe(time.perf_counter() - started_s)

    def _start(self, placed: Placement) -> None:
        """Give a place to a job. A claim starts the lease, so it waits for somebody who can renew it."""
        home, *others = placed.node_ids
        if not self._all_answer(set(others) - {home}):
            return
        runner = self._take_runner(home)
        if runner is None:
            return
        claimed = self._claim(placed)
        if claimed is None:
            self._processes.runners.give_back(home, runner)
            return
        ranks = self._lend_ranks(claimed, placed.node_ids)
        handles = [handle for _, handle in ranks]
        ref = runner.run.remote(self._config, claimed, handles, list(placed.node_ids))
        job = InFlightJob(claimed, runner, home, ranks, placed.node_ids, has_devices=self._has_devices(claimed))
        self._in_flight.add(ref, job)

    def _start_trial(self, placed: Placement, runner: ActorHandle | None) -> None:
        """Give a place to a trial: its study's runner, which lives already, runs it there."""
        if runner is None or not self._all_answer(set(placed.node_ids) - {self._studies.node_id}):
            return
        claimed = self._claim(placed)
        if claimed is None:
            return
        ranks = self._lend_ranks(claimed, placed.node_ids)
        ref = runner.run_trial.remote(claimed, [handle for _, handle in ranks], list(placed.node_ids))
        has_devices = self._has_devices(claimed)
        job = InFlightJob(claimed, runner, ranks=ranks, placement=placed.node_ids, has_devices=has_devices)
        self._in_flight.add(ref, job)

    def _all_answer(self, node_ids: set[str]) -> bool:
        """Return whether a warm runner of each node has just answered: an attempt must not be spent on a lost node."""
        for node_id in node_ids:
            runner = self._take_runner(node_id)
            if runner is None:
                return False
            self._processes.runners.give_back(node_id, runner)
        return True

    def _take_runner(self, node_id: str) -> ActorHandle | None:
        """Return a warm runner that has just answered; a node whose runners don't is left out until they do."""
        was_ready = self._processes.runners.has_ready(node_id)
        runner = self._processes.runners.take_answering(node_id)
        if runner is None and was_ready:
            self._silent.add(node_id)
        return runner

    def _claim(self, placed: Placement) -> ClaimedJob | None:
        with self._database.unit_of_work() as session:
            claimed = queue.claim(
                session,
                placed.job_id,
                runner=self._owner,
                lease_s=self._settings.dispatcher.lease_s,
                placement=placed.node_ids,
            )
        self._counters.num_placements += claimed is not None
        return claimed

    def _lend_ranks(self, claimed: ClaimedJob, node_ids: Sequence[str]) -> tuple[NodeProcess, ...]:
        """Return the warm processes a run gets: one per worker, or one that drives a managed group."""
        resources = claimed.job_spec.resources
        is_script = claimed.job_spec.entrypoint is not None
        if resources.num_workers > 1 and self._settings.ray.worker_groups == "managed" and not is_script:
            return ((node_ids[0], self._processes.ranks.take(node_ids[0])),)
        ranks = self._processes.ranks
        if claimed.job_spec.code is None:
            return tuple((node_id, ranks.take(node_id)) for node_id in node_ids)
        # Code that a job brings runs where nothing has run before, and nothing runs after it.
        ranks.expect_unused(max(Counter(node_ids).values()))
        return tuple((node_id, ranks.take_unused(node_id)) for node_id in node_ids)

    def _has_devices(self, claimed: ClaimedJob) -> bool:
        return bool(claimed.job_spec.resources.gpus_per_worker) and not self._config.is_cpu_only

    def _fail_infeasible(self, reasons: Reasons) -> None:
        """Fail jobs that have been too large for the whole cluster for a while; a node may only be rebooting."""
        now = time.monotonic()
        self._infeasible_since = {job_id: self._infeasible_since.get(job_id, now) for job_id in reasons.infeasible}
        for job_id, since in self._infeasible_since.items():
            if now - since < self._settings.dispatcher.infeasible_grace_s:
                continue
            with self._database.unit_of_work() as session:
                message = reasons[job_id].sentence()
                queue.fail_idle(session, job_id, kind=FailureKind.INFEASIBLE, message=message)

    def _publish(self, snapshot: Snapshot, decision: Plan) -> None:
        """Let people read why jobs wait."""
        if time.monotonic() < self._publish_at:
            return
        with self._database.unit_of_work() as session:
            last_decision.publish(session, snapshot, decision)
        self._publish_at = time.monotonic() + PUBLISH_INTERVAL_S
