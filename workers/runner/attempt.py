"""One training job while a runner has it: lease, reports, ranks, and how it ended."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum

import ray
from ray.actor import ActorHandle
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from xsam.services.artifacts.store import JobFolder
from xsam.services.db.session import Database
from xsam.services.errors import LeaseLostError
from xsam.services.jobs import queue
from xsam.services.jobs.queue import ClaimedJob
from xsam.services.jobs.states import FailureKind, Wish
from xsam.services.specs.job import JobSpec, Resources
from xsam.workers.messages import Assignment, RankResult, Report, RunnerConfig
from xsam.workers.runner.lease import LeaseKeeper
from xsam.workers.runner.placement_group import HeldResources, NotPlacedError
from xsam.workers.runner.rank_group import Ending, RankGroup
from xsam.workers.runner.recorder import RETRY_INTERVAL_S, Recorder

log = logging.getLogger(__name__)

NOT_PLACED_DELAY_S = 5.0


class RunnerOutcome(StrEnum):
    """What the dispatcher has to know of an ended run; the rows say the rest."""

    RANKS_CLEAN = "ranks_clean"
    """The rank processes can take another job."""
    RANKS_SPENT = "ranks_spent"
    """The rank processes must not be used again."""


class Attempt:
    """Runs one claimed job to its end and stores how it ended.

    Args:
        config: the settings that matter here.
        database: the runner's own.
        claimed: the job and its lease.
        runner: handle of the runner, for the ranks' reports.
        is_judged: whether the ranks ask the runner after each epoch if the run goes on.
    """

    def __init__(
        self,
        config: RunnerConfig,
        database: Database,
        claimed: ClaimedJob,
        runner: ActorHandle,
        *,
        is_judged: bool = False,
    ) -> None:
        self._config = config
        self._database = database
        self._claimed = claimed
        self._spec = JobSpec.model_validate(claimed.spec)
        self._runner = runner
        self._is_judged = is_judged
        self._lost = threading.Event()
        on_lost = self._lost.set
        self._keeper = LeaseKeeper(database, claimed.lease, lease_s=config.lease_s, on_lost=on_lost)
        self._folder = JobFolder(config.artifact_root, claimed.lease.job_id)
        self._recorder = Recorder(database, claimed.lease, self._folder.checkpoints, on_lost=on_lost)

    def is_for(self, job_id: str, attempt: int) -> bool:
        """Return whether a rank that names this attempt belongs to this run and not to an earlier one."""
        return (self._claimed.lease.job_id, self._claimed.lease.attempt) == (job_id, attempt)

    def record(self, report: Report) -> None:
        """Take a report of rank 0; it is stored within a moment."""
        self._recorder.put(report)

    def wish(self) -> str | None:
        """Return what somebody wants of the job."""
        return self._keeper.wish

    def may_publish(self) -> bool:
        """Store all reports so far; return whether the job is still this attempt's, by the database's word."""
        self._recorder.flush()
        try:
            self._when_database_answers(self._check_lease)
        except LeaseLostError:
            self._lost.set()
        return not self._lost.is_set()

    def run(self, ranks: list[ActorHandle], nodes: list[str]) -> RunnerOutcome | None:
        """Take the place, train, then store the end; None if somebody else owns the job by now.

        Args:
            ranks: see `placed`.
            nodes: Ray node of each worker.
        """
        try:
            with placed(self._spec.resources, ranks, nodes) as held:
                return self.run_on(held)
        except NotPlacedError as e:
            return self.end(Ending(None, is_clean=True, not_placed=str(e)))

    def run_on(self, ranks: Sequence[ActorHandle]) -> RunnerOutcome | None:
        """Train on these rank processes, whose place somebody holds, then store the end.

        Ranks of a run that has become somebody else's are ended, also those that came back by themselves: whoever lent
        them may be gone, and this runner ends too.
        """
        outcome = self.end(RankGroup(ranks).run(self._assignment(), self._runner, self._lost))
        if outcome is None:
            for rank in ranks:
                ray.kill(rank)
        return outcome

    def end(self, ending: Ending) -> RunnerOutcome | None:
        """Store what was reported and how the run ended."""
        self._recorder.close()
        self._keeper.close()
        if self._lost.is_set():
            return None
        try:
            self._when_database_answers(lambda: self._store_end(ending))
        except LeaseLostError:
            return None
        return RunnerOutcome.RANKS_CLEAN if ending.is_clean else RunnerOutcome.RANKS_SPENT

    def _assignment(self) -> Assignment:
        lease = self._claimed.lease
        return Assignment(
            job_id=lease.job_id,
            attempt=lease.attempt,
            spec=self._claimed.spec,
            rank=0,
            world_size=self._spec.resources.num_workers,
            checkpoint_dir=self._folder.checkpoints,
            log_dir=self._folder.logs(lease.attempt),
            dataset_root=self._config.dataset_root,
            allow_download=self._config.allow_download,
            allowed_packages=self._config.allowed_packages,
            is_judged=self._is_judged,
        )

    def _check_lease(self) -> None:
        with self._database.unit_of_work() as session:
            queue.touch(session, self._claimed.lease)

    def _store_end(self, ending: Ending) -> None:
        with self._database.unit_of_work() as session:
            self._write_end(session, ending)

    def _write_end(self, session: Session, ending: Ending) -> None:
        lease, result = self._claimed.lease, ending.result
        if result is None:
            queue.postpone(session, lease, delay_s=NOT_PLACED_DELAY_S, message=ending.not_placed)
        elif result.failure_kind is not None:
            self._write_failure(session, result, result.failure_kind)
        elif result.stopped_by == Wish.CANCEL:
            queue.finish_cancelled(session, lease)
        elif result.stopped_by is not None:
            message = f"stopped by {result.stopped_by}"
            queue.release(session, lease, outcome=FailureKind.PREEMPTED, message=message)
        else:
            queue.complete(session, lease, summary=result.summary or {})

    def _write_failure(self, session: Session, result: RankResult, kind: FailureKind) -> None:
        lease = self._claimed.lease
        queue.fail(session, lease, kind=kind, message=result.message, traceback=result.traceback)

    def _when_database_answers(self, write: Callable[[], None]) -> None:
        while True:
            try:
                return write()
            except DBAPIError as e:
                log.warning("the database did not answer, trying again: %s", e)
                time.sleep(RETRY_INTERVAL_S)


@contextmanager
def placed(resources: Resources, ranks: Sequence[ActorHandle], nodes: Sequence[str]) -> Iterator[Sequence[ActorHandle]]:
    """Hold the resources of a run while the block runs, and yield its rank processes.

    Args:
        resources: what the run takes.
        ranks: warm rank processes, one per worker; a single one for several workers drives a worker group, which Ray
            Train places itself; empty where the run needs one of its own, with GPUs.
        nodes: Ray node of each worker.

    Raises:
        NotPlacedError: on entry, if Ray can't give the resources in time.
    """
    if len(ranks) == 1 and resources.num_workers > 1:
        yield ranks
        return
    with HeldResources(resources, nodes) as resources_held:
        if ranks:
            yield ranks
            return
        own = resources_held.new_rank(0)
        try:
            yield [own]
        finally:
            ray.kill(own)
