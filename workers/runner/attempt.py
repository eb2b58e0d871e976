"""One training job while a runner has it: lease, reports, ranks, and how it ended."""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import ray
from ray.actor import ActorHandle
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from xsam.services import logs
from xsam.services.artifacts.store import CHECKPOINTS, TENSORBOARD, JobFolder, prefix_of
from xsam.services.bundles.service import file_of
from xsam.services.db.session import AWAY, Database, refusal
from xsam.services.errors import LeaseLostError, StorageError
from xsam.services.jobs import queue
from xsam.services.jobs import service as jobs
from xsam.services.jobs.queue import ClaimedJob, Lease
from xsam.services.jobs.states import FailureKind, Wish
from xsam.services.metrics import service as metrics
from xsam.services.metrics.records import EpochRecord, PlaneRecord
from xsam.services.requirements import service as requirements
from xsam.services.specs.job import JobSpec
from xsam.services.teams.numbers import number_of
from xsam.workers.isolation.folders import close_job, open_job
from xsam.workers.isolation.team_user import IsolationError
from xsam.workers.messages import Assignment, RankContext, RankResult, Report, RunnerConfig, RunnerOutcome, StopReason
from xsam.workers.runner.lease import LeaseKeeper
from xsam.workers.runner.placement_group import NotPlacedError, PlacedRank, held_resources
from xsam.workers.runner.rank_group import GroupEnding, RankGroup
from xsam.workers.runner.recorder import RETRY_INTERVAL_S, Recorder
from xsam.workers.runner.secrets import NoSecretsError, values_for, without
from xsam.workers.runner.trackers.sink import Ended, TrackedRun
from xsam.workers.runner.trackers.tracking import Trackers, sinks_of
from xsam.workers.scratch import Scratch

log = logging.getLogger(__name__)

NOT_PLACED_DELAY_S = 5.0


class Attempt:
    """Runs one claimed job to its end and stores how it ended.

    Args:
        config: the settings that matter here.
        database: the runner's own.
        claimed: the job and its lease.
        runner: handle of the runner, for the ranks' reports.
        is_judged: whether the ranks ask the runner after each epoch if the run goes on.
        on_epoch: is told of each finished epoch, at once.
        finish: stores the end, in a transaction of its own; called again where the database did not answer. None
            stores what any job's row says of it.
    """

    def __init__(  # noqa: PLR0913 - what every attempt has, and what a trial's has besides
        self,
        config: RunnerConfig,
        database: Database,
        claimed: ClaimedJob,
        runner: ActorHandle,
        *,
        is_judged: bool = False,
        on_epoch: Callable[[EpochRecord], None] | None = None,
        finish: Callable[[GroupEnding], None] | None = None,
    ) -> None:
        self._config = config
        self._database = database
        self._claimed = claimed
        self._runner = runner
        self._is_judged = is_judged
        self._on_epoch = on_epoch
        self._finish = finish or self._store_end
        self._stopped = threading.Event()
        """The ranks work in vain: the lease is lost, or what they report can't be stored."""
        self._is_lost = False
        self._refusal = ""
        on_lost = self._note_lost
        number = claimed.lease.attempt
        self._folder = JobFolder(config.place.root, claimed.lease.job_id)
        own = (f"attempts/{number}/runner.log*", f"{TENSORBOARD}/*", "wandb/**/*")
        self._scratch = Scratch(config.place, self.job_id, own)
        self._file = logs.AttemptFile(self._folder.attempt(number), self.job_id, number, config.logs)
        self._log = logs.of_attempt(log, self.job_id, number)
        self._log.info("the attempt begins in process %d on %s", os.getpid(), socket.gethostname())
        self._keeper = LeaseKeeper(database, claimed.lease, lease_s=config.lease_s, on_lost=on_lost)
        self._recorder = Recorder(
            database,
            claimed.lease,
            self._checkpoint_names,
            num_ranks=claimed.job_spec.resources.num_workers,
            on_lost=on_lost,
            on_refused=self._note_refused,
        )

        is_training = claimed.job_spec.plane is None
        self._trackers = Trackers(self._tracked, sinks_of(config.trackers) if is_training else {})

    @property
    def job_id(self) -> str:
        """The job's id."""
        return self._claimed.lease.job_id

    def record(self, report: Report) -> None:
        """Take a report of a rank; it is stored within a moment."""
        self._recorder.put(report)
        self._trackers.put(report)
        if self._on_epoch is not None and isinstance(report, EpochRecord):
            self._on_epoch(report)

    def wish(self) -> Wish | None:
        """Return what somebody wants of the job."""
        return self._keeper.wish

    def may_publish(self) -> bool:
        """Store all reports so far; return whether the job is still this attempt's, by the database's word."""
        self._recorder.flush()
        try:
            self._when_database_answers(self._check_lease)
        except LeaseLostError:
            self._note_lost()
        return not self._stopped.is_set()

    def run(self, ranks: Sequence[ActorHandle], nodes: Sequence[str]) -> RunnerOutcome | None:
        """Take the place, train, then store the end; None if somebody else owns the job by now.

        Args:
            ranks: see `held_resources`.
            nodes: Ray node of each worker.
        """
        lease = self._claimed.lease
        try:
            with held_resources(self._claimed.job_spec.resources, ranks, nodes, owner=lease) as held:
                return self.run_on(held)
        except NotPlacedError as e:
            return self.end(GroupEnding(None, is_clean=True, not_placed=str(e)))

    def run_on(self, ranks: Sequence[PlacedRank]) -> RunnerOutcome | None:
        """Train on these ranks, whose place somebody holds, then store the end.

        Ranks of a run that has become somebody else's are ended, also those that came back by themselves: whoever lent
        them may be gone, and this runner ends too.
        """
        names, keys = self._claimed.job_spec.secrets, self._config.secret_keys
        try:
            secrets = values_for(self._database, self.job_id, names, keys)
            assignment = self._assignment(secrets)
        except NoSecretsError as e:
            return self.end(e.ending)
        except IsolationError as e:
            failed = RankResult(0, failure_kind=FailureKind.INFRASTRUCTURE, message=str(e))
            return self.end(GroupEnding(failed, is_clean=True))
        ending = RankGroup(ranks).run(assignment, self._runner, self._stopped)
        if assignment.team_user is not None:
            close_job(self._folder, self._claimed.lease.attempt)
        outcome = self.end(without(ending, secrets))
        if outcome is None:
            for rank in ranks:
                ray.kill(rank.process)
        return outcome

    def end(self, ending: GroupEnding) -> RunnerOutcome | None:
        """Store what was reported and how the run ended; then trackers hear of it."""
        try:
            outcome = self._end(ending)
            self._trackers.close(_ended(ending))
            return outcome
        finally:
            self._file.close()
            self._scratch.close()

    def _end(self, ending: GroupEnding) -> RunnerOutcome | None:
        self._recorder.close()
        # Before the row says that it has ended: who reads the log then reads all of it, also of ranks that were killed.
        self._scratch.flush(f"attempts/{self._claimed.lease.attempt}/logs/*")
        self._keeper.close()
        if self._is_lost:
            self._log.warning("the lease is lost: the job is somebody else's")
            return None
        if self._refusal:
            ending = _unstored(f"what it reported can't be stored: {self._refusal}")
        try:
            self._store(ending)
        except LeaseLostError:
            return None
        failed = ending.result is None or ending.result.failure_kind
        self._log.info("the attempt ended: %s", ending.not_placed or failed or "no failure")
        if ending.result is not None and ending.result.is_device_failure:
            return RunnerOutcome.DEVICES_FAILED
        return RunnerOutcome.RANKS_CLEAN if ending.is_clean else RunnerOutcome.RANKS_SPENT

    def _assignment(self, secrets: Mapping[str, str]) -> Assignment:
        lease, spec, config = self._claimed.lease, self._claimed.job_spec, self._config
        context = RankContext(
            rank=0,
            world_size=spec.resources.num_workers,
            device="cuda:0" if spec.resources.gpus_per_worker and not config.is_cpu_only else "cpu",
            dataset_root=config.dataset_root,
            model_root=config.model_root,
            checkpoint_dir=self._folder.checkpoints,
            bucket=config.place if config.place.is_bucket else None,
            allow_download=config.allow_download,
            allowed_packages=config.allowed_packages,
            num_threads=spec.resources.cpus_per_worker,
        )
        return Assignment(
            lease.job_id,
            lease.attempt,
            spec,
            context,
            self._folder.logs(lease.attempt),
            place=config.place,
            code_file=None if spec.code is None else file_of(spec.code.bundle),
            code_root=config.code_root,
            lock=self._lock(spec),
            environments=config.environments,
            looked_at=None if spec.plane is None else JobFolder(config.place.root, spec.plane.job).checkpoints,
            planes=self._planes(spec),
            is_judged=self._is_judged,
            secrets=secrets,
            team_user=self._team_user(spec),
        )

    def _team_user(self, spec: JobSpec) -> int | None:
        """Return as whom the ranks run, when the job's folder is theirs."""
        if self._config.first_user_id is None:
            return None
        with self._database.read() as session:
            team = jobs.get(session, self.job_id).team
        user = self._config.first_user_id + number_of(self._database, team)
        open_job(self._folder, user, attempt=self._claimed.lease.attempt)
        if spec.plane is not None and not self._config.place.is_bucket:
            open_job(JobFolder(self._config.place.root, spec.plane.job), user)
        return user

    def _checkpoint_names(self) -> Sequence[str] | None:
        try:
            return self._config.place.open().names(prefix_of(self.job_id, CHECKPOINTS))
        except StorageError as e:
            self._log.warning("rows of pruned checkpoints stay: %s", e)
            return None

    def _planes(self, spec: JobSpec) -> tuple[PlaneRecord, ...]:
        if spec.plane is None:
            return ()
        with self._database.read() as session:
            return tuple(metrics.list_planes(session, self.job_id))

    def _tracked(self, first_step: int) -> TrackedRun:
        spec = self._claimed.job_spec
        with self._database.read() as session:
            team = jobs.get(session, self.job_id).team
        values = spec.model_dump(mode="json")
        return TrackedRun(self.job_id, spec.name or self.job_id, team, values, self._folder.path, first_step)

    def _lock(self, spec: JobSpec) -> str | None:
        if spec.requirements is None:
            return None
        with self._database.read() as session:
            return requirements.lock_of(session, spec.requirements.lock)

    def _note_lost(self) -> None:
        self._is_lost = True
        self._stopped.set()

    def _note_refused(self, reason: str) -> None:
        self._refusal = reason
        self._stopped.set()

    def _store(self, ending: GroupEnding) -> None:
        """Store the end, or else that it can't be stored.

        Raises:
            LeaseLostError: the job is somebody else's.
        """
        try:
            self._when_database_answers(lambda: self._finish(ending))
        except DBAPIError as e:
            self._log.exception("the end can't be stored")
            failed = _unstored(f"how it ended can't be stored: {refusal(e)}")
            self._when_database_answers(lambda: self._finish(failed))

    def _check_lease(self) -> None:
        with self._database.unit_of_work() as session:
            queue.touch(session, self._claimed.lease)

    def _store_end(self, ending: GroupEnding) -> None:
        with self._database.unit_of_work() as session:
            write_end(session, self._claimed.lease, ending)

    def _when_database_answers(self, write: Callable[[], None]) -> None:
        while True:
            try:
                return write()
            except AWAY as e:
                self._log.warning("the database did not answer, trying again: %s", e)
                time.sleep(RETRY_INTERVAL_S)


def _ended(ending: GroupEnding) -> Ended:
    result = ending.result
    if result is None or result.stopped_by is not None:
        return Ended.STOPPED
    return Ended.FINISHED if result.failure_kind is None else Ended.FAILED


def _unstored(message: str) -> GroupEnding:
    return GroupEnding(RankResult(0, failure_kind=FailureKind.USER, message=message), is_clean=False)


def write_end(session: Session, lease: Lease, ending: GroupEnding) -> None:
    """Write to the job's row how its attempt ended.

    Raises:
        LeaseLostError: the job is somebody else's.
    """
    result = ending.result
    if result is None:
        queue.postpone(session, lease, delay_s=NOT_PLACED_DELAY_S, message=ending.not_placed)
    elif result.failure_kind is not None:
        queue.fail(session, lease, kind=result.failure_kind, message=result.message, traceback=result.traceback)
    elif result.stopped_by is StopReason.CANCEL:
        queue.finish_cancelled(session, lease)
    elif result.stopped_by is not None:
        message = f"stopped by {result.stopped_by}"
        queue.release(session, lease, outcome=FailureKind.PREEMPTED, message=message)
    else:
        queue.complete(session, lease, summary=result.summary or {})
