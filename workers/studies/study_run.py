"""The runner of a study: a Ray actor that owns a study and all its running trials, and lets Ray Tune choose them."""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Sequence
from typing import Any

import ray
from ray.actor import ActorHandle
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from xsam.services.db.clock import utc_now
from xsam.services.db.session import Database
from xsam.services.errors import LeaseLostError, ServiceError
from xsam.services.jobs import queue
from xsam.services.jobs.models import Job
from xsam.services.jobs.queue import ClaimedJob
from xsam.services.jobs.states import Wish
from xsam.services.process import freeze_imports
from xsam.services.specs.job import JobSpec
from xsam.services.studies import trials
from xsam.services.studies.service import get
from xsam.workers.messages import Report, RunnerConfig
from xsam.workers.runner.attempt import NOT_PLACED_DELAY_S, RunnerOutcome, placed
from xsam.workers.runner.lease import LeaseKeeper
from xsam.workers.runner.placement_group import NotPlacedError
from xsam.workers.studies import ending
from xsam.workers.studies.next_trial import SpaceError
from xsam.workers.studies.state import Course
from xsam.workers.studies.trial_attempt import TrialRun
from xsam.workers.studies.tuner import run_tuner

log = logging.getLogger(__name__)

LOOK_INTERVAL_S = 0.3
TUNE_ENDS_WITHIN_S = 30.0


class Runner:
    """Runs one study in its life; its methods are called in many threads.

    `run` blocks for as long as the study runs, and so does `run_trial` for each place in the cluster that the
    dispatcher gives it: a place is used for one trial after the other. Ranks and Tune's relays call the other methods.
    """

    def __init__(self) -> None:
        self._course: Course | None = None
        self._runs: dict[tuple[str, int], TrialRun] = {}
        self._is_closing = threading.Event()
        self._error: ServiceError | None = None
        self._lost = threading.Event()
        freeze_imports()

    def run(self, config: RunnerConfig, claimed: ClaimedJob) -> RunnerOutcome:
        """Run the study until it ends or is paused with nothing running.

        The process ends instead, and its trials with it, if the study has become somebody else's.

        Args:
            config: the settings that matter here.
            claimed: the study and its lease.
        """
        self._config = config
        self._database = Database(config.database_url, pool_size=10, scheduling=config.scheduling)
        self._claimed = claimed
        keeper = LeaseKeeper(self._database, claimed.lease, lease_s=config.lease_s, on_lost=self._lost.set)
        try:
            self._open()
            tuner = threading.Thread(target=self._tune, name="tune", daemon=True)
            tuner.start()
            self._watch(keeper)
            self._close()
            tuner.join(TUNE_ENDS_WITHIN_S)
        except LeaseLostError:
            log.warning("study %s is somebody else's now", claimed.lease.job_id)
            os._exit(0)  # whoever started this run may be gone: nobody else would end the process
        finally:
            keeper.close()
        return RunnerOutcome.RANKS_CLEAN

    def run_trial(self, claimed: ClaimedJob, ranks: list[ActorHandle], nodes: list[str]) -> RunnerOutcome:
        """Run a trial at a place that the dispatcher has given, then as many others as may follow there.

        Args:
            claimed: the first trial and its lease.
            ranks: see `xsam.workers.runner.attempt.placed`.
            nodes: Ray node of each worker.
        """
        course = self._course
        if course is None or self._is_closing.is_set() or not self._is_known(course, claimed.lease.job_id):
            return self._send_back(claimed, "its study has no runner at this moment")
        spec = JobSpec.model_validate(claimed.spec)
        outcome = RunnerOutcome.RANKS_CLEAN
        try:
            with placed(spec.resources, ranks, nodes) as held:
                following: ClaimedJob | None = claimed
                while following is not None and outcome is RunnerOutcome.RANKS_CLEAN:
                    outcome, following = self._run_one(course, following, held)
        except NotPlacedError as e:
            return self._send_back(claimed, str(e))
        return outcome

    def record(self, job_id: str, attempt: int, report: Report) -> None:
        """Take a report of rank 0 of a trial."""
        run = self._runs.get((job_id, attempt))
        if run is not None:
            run.record(report)

    def wish(self, job_id: str, attempt: int) -> str | None:
        """Return what somebody wants of a running trial."""
        run = self._runs.get((job_id, attempt))
        return None if run is None else run.wish()

    def may_publish(self, job_id: str, attempt: int) -> bool:
        """Return whether a rank may still put a checkpoint in place."""
        run = self._runs.get((job_id, attempt))
        return run is not None and run.may_publish()

    def verdict(self, job_id: str, attempt: int, epoch: int) -> bool:
        """Wait for the early stopper's word on an epoch; True ends the trial."""
        run = self._runs.get((job_id, attempt))
        return run is not None and run.verdict(epoch)

    def next_result(self, trial_id: str) -> dict[str, Any]:
        """Wait for what Tune is told next of a trial."""
        if self._course is None:
            return {"epoch": 0, "done": True}
        delivery = self._course.desk.next_delivery(trial_id)
        return {"epoch": delivery.epoch, "done": delivery.is_over}

    def _open(self) -> None:
        """Build the course from the rows and tell the dispatcher where trials are to be brought."""
        lease = self._claimed.lease
        with self._database.read() as session:
            self._course = Course(session, *get(session, lease.job_id))
        with self._database.unit_of_work() as session:
            queue.touch(session, lease)
            get(session, lease.job_id)[1].runner_name = ray.get_runtime_context().get_actor_name()

    def _tune(self) -> None:
        course = self._course
        if course is None:
            return
        try:
            run_tuner(course, ray.get_runtime_context().current_actor, self._start_trial, self._is_closing.is_set)
        except Exception:  # whatever Tune raises: without it nobody judges, so another runner takes the study up
            if not self._is_closing.is_set():
                log.exception("Ray Tune failed; study %s is taken up again from its rows", course.study_id)
                os._exit(1)

    def _start_trial(self) -> bool:
        """Queue the course's next trial; called by Tune's searcher."""
        course = self._course
        if course is None or self._is_closing.is_set():
            return False
        try:
            new = course.propose()
        except SpaceError as e:
            self._error = e
            return False
        if new is None:
            return False
        try:
            with self._database.unit_of_work() as session:
                trials.enqueue(session, self._claimed.lease, new)
        except (DBAPIError, LeaseLostError) as e:
            log.warning("a trial could not be queued: %s", e)
            course.withdraw(new)
            return False
        return True

    def _watch(self, keeper: LeaseKeeper) -> None:
        """Look after the study until it is over.

        Raises:
            LeaseLostError: it is somebody else's.
        """
        while True:
            if self._lost.is_set():
                raise LeaseLostError(f"study {self._claimed.lease.job_id} is somebody else's")
            try:
                if self._look(keeper.wish):
                    return
            except DBAPIError as e:
                log.warning("the database did not answer, trying again: %s", str(e).splitlines()[0])
            time.sleep(LOOK_INTERVAL_S)

    def _look(self, wish: Wish | None) -> bool:
        """Take over what has changed, and end the study if it is time; return whether it has ended."""
        course = self._course
        if course is None:
            return True
        with self._database.read() as session:
            job, study = get(session, course.study_id)
            course.sync(session, study)
            course.is_time_spent = _is_time_spent(session, job, course)
        end = ending.decide(course, wish, self._error)
        return end is not None and self._make_way(course, end) and self._store(end)

    def _make_way(self, course: Course, end: ending.End) -> bool:
        """Ask trials to leave where an end needs it; return whether none stands in its way."""
        if end.stops is not None:
            with self._database.unit_of_work() as session:
                ending.stop_trials(session, self._claimed.lease, end)
        return not (self._runs or (end.waits_for_all and course.live_ids))

    def _store(self, end: ending.End) -> bool:
        self._is_closing.set()
        if self._runs:  # a trial was brought in this very moment
            self._is_closing.clear()
            return False
        with self._database.unit_of_work() as session:
            ending.write(session, self._claimed.lease, end)
        return True

    def _run_one(
        self, course: Course, claimed: ClaimedJob, held: Sequence[ActorHandle]
    ) -> tuple[RunnerOutcome, ClaimedJob | None]:
        me = ray.get_runtime_context().current_actor
        key = (claimed.lease.job_id, claimed.lease.attempt)
        run = TrialRun(self._config, self._database, claimed, me, course, self._claimed.lease)
        self._runs[key] = run
        try:
            outcome = run.run_on(held)
        finally:
            del self._runs[key]
        return outcome or RunnerOutcome.RANKS_SPENT, run.following

    def _is_known(self, course: Course, trial_id: str) -> bool:
        if not course.knows(trial_id):
            with self._database.read() as session:
                course.sync(session, get(session, course.study_id)[1])
        return course.knows(trial_id)

    def _send_back(self, claimed: ClaimedJob, why: str) -> RunnerOutcome:
        with contextlib.suppress(LeaseLostError), self._database.unit_of_work() as session:
            queue.postpone(session, claimed.lease, delay_s=NOT_PLACED_DELAY_S, message=why)
        return RunnerOutcome.RANKS_CLEAN

    def _close(self) -> None:
        self._is_closing.set()
        if self._course is not None:
            self._course.desk.close()


def _is_time_spent(session: Session, job: Job, course: Course) -> bool:
    budget = course.spec.budget
    if budget.gpu_hours is not None and trials.gpu_hours(session, course.study_id) >= budget.gpu_hours:
        return True
    if budget.wall_s is None or job.started_at is None:
        return False
    return (utc_now() - job.started_at).total_seconds() >= budget.wall_s
