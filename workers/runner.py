"""The runner: a Ray actor that owns one running job, from the claim to its last row. It trains nothing itself."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import ray
from ray.actor import ActorHandle
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from services.artifacts.layout import JobFolder
from services.db.session import Database
from services.errors import LeaseLostError
from services.jobs import queue, retry
from services.jobs.queue import ClaimedJob
from services.jobs.stalled import past_outcomes
from services.jobs.states import FailureKind, JobState, Wish
from services.specs.job import JobSpec
from workers.assignment import Assignment, RankResult, Report, RunnerConfig
from workers.gang import Ending, Gang
from workers.lease_keeper import LeaseKeeper
from workers.recorder import RETRY_INTERVAL_S, Recorder
from workers.reservation import NotPlacedError, Reservation

log = logging.getLogger(__name__)

NOT_PLACED_DELAY_S = 5.0


class RunnerOutcome(StrEnum):
    """What the dispatcher has to know of an ended run; the rows say the rest."""

    RANKS_CLEAN = "ranks_clean"
    """The rank processes can take another job."""
    RANKS_SPENT = "ranks_spent"
    """The rank processes must not be used again."""
    LEASE_LOST = "lease_lost"
    """Somebody else owns the job now; this process and its ranks must end."""


@dataclass(slots=True)
class _Run:
    """One job while it runs."""

    claimed: ClaimedJob
    recorder: Recorder
    keeper: LeaseKeeper
    lost: threading.Event


class JobRunner:
    """Runs one job at a time; a threaded actor: `run` blocks while `record` and `wish` are served."""

    def __init__(self) -> None:
        self._run: _Run | None = None

    def configure(self, config: RunnerConfig) -> None:
        """Take the settings and open the database; called once, before the first job."""
        self._config = config
        self._database = Database(config.database_url, pool_size=3)

    def record(self, report: Report) -> None:
        """Take a report of rank 0; it is stored within a moment."""
        if self._run is not None:
            self._run.recorder.put(report)

    def wish(self) -> str | None:
        """Return what somebody wants of the running job."""
        return None if self._run is None else self._run.keeper.wish

    def ready(self) -> str:
        """Return the Ray node of this process; also the sign that it is warm."""
        return ray.get_runtime_context().get_node_id()

    def run(self, claimed: ClaimedJob, ranks: list[ActorHandle], nodes: list[str]) -> RunnerOutcome:
        """Run the job to its end and store how it ended.

        Args:
            claimed: the job and its lease.
            ranks: warm rank processes, one per worker; a single one for several workers drives a worker group;
                empty where the run makes its own, with GPUs.
            nodes: Ray node of each worker.
        """
        run = self._open(claimed)
        try:
            ending = self._train(run, ranks, nodes)
        except NotPlacedError as e:
            ending = Ending(None, is_clean=True, not_placed=str(e))
        finally:
            run.recorder.close()
            run.keeper.close()
            self._run = None
        if run.lost.is_set():
            return RunnerOutcome.LEASE_LOST
        try:
            self._when_database_answers(lambda: self._store_end(run, ending))
        except LeaseLostError:
            return RunnerOutcome.LEASE_LOST
        return RunnerOutcome.RANKS_CLEAN if ending.is_clean else RunnerOutcome.RANKS_SPENT

    def _open(self, claimed: ClaimedJob) -> "_Run":
        lost = threading.Event()
        keeper = LeaseKeeper(self._database, claimed.lease, lease_s=self._config.lease_s, on_lost=lost.set)
        self._run = _Run(claimed, Recorder(self._database, claimed.lease, on_lost=lost.set), keeper, lost)
        return self._run

    def _train(self, run: "_Run", ranks: list[ActorHandle], nodes: list[str]) -> Ending:
        spec = JobSpec.model_validate(run.claimed.spec)
        assignment = self._assignment(run.claimed, spec)
        me = ray.get_runtime_context().current_actor
        if len(ranks) == 1 and spec.resources.num_workers > 1:  # Ray Train places its worker group itself
            return Gang(ranks, is_owned=False).run(assignment, me, run.lost)
        with Reservation(spec.resources, nodes) as reservation:
            gang = Gang(ranks or [reservation.new_rank(0)], is_owned=not ranks)
            return gang.run(assignment, me, run.lost)

    def _assignment(self, claimed: ClaimedJob, spec: JobSpec) -> Assignment:
        folder = JobFolder(self._config.artifact_root, claimed.lease.job_id)
        return Assignment(
            job_id=claimed.lease.job_id,
            attempt=claimed.lease.attempt,
            spec=claimed.spec,
            rank=0,
            world_size=spec.resources.num_workers,
            checkpoint_dir=folder.checkpoints,
            log_dir=folder.logs(claimed.lease.attempt),
            dataset_root=self._config.dataset_root,
            allow_download=self._config.allow_download,
            allowed_packages=self._config.allowed_packages,
        )

    def _store_end(self, run: "_Run", ending: Ending) -> None:
        lease = run.claimed.lease
        with self._database.unit_of_work() as session:
            if ending.result is None:
                queue.postpone(session, lease, delay_s=NOT_PLACED_DELAY_S, message=ending.not_placed)
            elif ending.result.failure_kind is not None:
                self._store_failure(session, run.claimed, ending.result)
            elif ending.result.stopped_by == Wish.CANCEL:
                queue.finish_cancelled(session, lease)
            elif ending.result.stopped_by is not None:
                to = JobState.PAUSED if ending.result.stopped_by == Wish.PAUSE else JobState.QUEUED
                message = f"stopped by {ending.result.stopped_by}"
                queue.release(session, lease, outcome=FailureKind.PREEMPTED, message=message, to=to)
            else:
                queue.complete(session, lease, summary=ending.result.summary or {})

    def _store_failure(self, session: Session, claimed: ClaimedJob, result: RankResult) -> None:
        kind = result.failure_kind or FailureKind.INFRASTRUCTURE
        policy = JobSpec.model_validate(claimed.spec).retry
        decision = retry.decide(policy, kind, [*past_outcomes(session, claimed.lease.job_id), kind])
        queue.fail(
            session, claimed.lease, kind=kind, message=result.message, decision=decision, traceback=result.traceback
        )

    def _when_database_answers(self, write: Callable[[], None]) -> None:
        while True:
            try:
                return write()
            except DBAPIError as e:
                log.warning("the database refused the end of a run, trying again: %s", e)
                time.sleep(RETRY_INTERVAL_S)


RunnerActor = ray.remote(max_concurrency=4)(JobRunner)
