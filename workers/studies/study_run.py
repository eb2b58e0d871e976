"""The runner of a study: behind a Ray actor, it owns a study and all its running trials, and queues new ones."""

import contextlib
import logging
import os
import threading

import ray
from ray.actor import ActorHandle
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from xsam.services.db.clock import utc_now
from xsam.services.db.session import AWAY, Database
from xsam.services.errors import LeaseLostError
from xsam.services.jobs import queue
from xsam.services.jobs.models import Job
from xsam.services.jobs.queue import ClaimedJob
from xsam.services.jobs.states import Wish
from xsam.services.studies import trials
from xsam.services.studies.service import get
from xsam.workers.messages import RunnerConfig, RunnerOutcome
from xsam.workers.runner.attempt import NOT_PLACED_DELAY_S, Attempt
from xsam.workers.runner.lease import LeaseKeeper
from xsam.workers.runner.placement_group import NotPlacedError, held_resources
from xsam.workers.runner.rank_group import GroupEnding
from xsam.workers.studies import ending
from xsam.workers.studies.state import StudyState
from xsam.workers.studies.trial_attempt import TrialAttempt

log = logging.getLogger(__name__)

LOOK_INTERVAL_S = 0.3


class StudyRun:
    """Runs one study in its life; its methods are called in many threads.

    `run` blocks for as long as the study runs, and so does `run_trial` for each place in the cluster that the
    dispatcher gives it: a place is used for one trial after the other.

    Args:
        attempts: the actor's table of running attempts, where ranks find theirs.
    """

    def __init__(self, attempts: dict[tuple[str, int], Attempt]) -> None:
        self._state: StudyState | None = None
        self._attempts = attempts
        self._is_closing = threading.Event()
        self._has_news = threading.Event()
        """Set when a trial has left its place: the next look at the study is due at once."""
        self._lost = threading.Event()

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
            self._watch(keeper)
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
            ranks: see `xsam.workers.runner.placement_group`.
            nodes: Ray node of each worker.
        """
        state = self._state
        if state is None or self._is_closing.is_set() or not self._is_known(state, claimed.lease.job_id):
            return self._send_back(claimed, "its study has no runner at this moment")
        run = self._begin(state, claimed)
        try:
            wanted, owner = claimed.job_spec.resources, self._claimed.lease
            with held_resources(wanted, ranks, nodes, owner=owner) as held:
                outcome = run.attempt.run_on(held)
                while outcome is RunnerOutcome.RANKS_CLEAN and run.following is not None:
                    run = self._begin(state, run.following, after=run)
                    outcome = run.attempt.run_on(held)
        except NotPlacedError as e:
            outcome = run.attempt.end(GroupEnding(None, is_clean=True, not_placed=str(e)))
        finally:
            del self._attempts[run.key]
            self._has_news.set()
        return outcome or RunnerOutcome.RANKS_SPENT

    def verdict(self, job_id: str, attempt: int, epoch: int) -> bool:
        """Return whether the early stopper ends a trial after an epoch that it has reported."""
        state = self._state
        return state is not None and (job_id, attempt) in self._attempts and state.judge(job_id, epoch)

    def _open(self) -> None:
        """Build the state from the rows and tell the dispatcher where trials are to be brought."""
        lease = self._claimed.lease
        with self._database.read() as session:
            self._state = StudyState(session, *get(session, lease.job_id))
        with self._database.unit_of_work() as session:
            queue.touch(session, lease)
            get(session, lease.job_id)[1].runner_name = ray.get_runtime_context().get_actor_name()

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
            except AWAY as e:
                log.warning("the database did not answer, trying again: %s", str(e).splitlines()[0])
            self._has_news.wait(LOOK_INTERVAL_S)
            self._has_news.clear()

    def _look(self, wish: Wish | None) -> bool:
        """Take over what has changed, queue new trials, end the study if it is time; return whether it has ended."""
        state = self._state
        if state is None:
            return True
        with self._database.read() as session:
            job, study = get(session, state.study_id)
            state.sync(session, study)
            state.is_time_spent = _is_time_spent(session, job, state)
        if wish is None:
            self._queue_trials(state)
        end = ending.decide(state, wish)
        return end is not None and self._make_way(state, end) and self._store(end)

    def _queue_trials(self, state: StudyState) -> None:
        """Queue what may start beside the trials that are live; a trial's own end queues its successor (see there)."""
        while (new := state.propose()) is not None:
            try:
                with self._database.unit_of_work() as session:
                    trials.enqueue(session, self._claimed.lease, new)
            except (DBAPIError, LeaseLostError):
                state.withdraw(new)
                raise

    def _make_way(self, state: StudyState, end: ending.End) -> bool:
        """Ask trials to leave where an end needs it; return whether none stands in its way."""
        if end.stops is not None:
            with self._database.unit_of_work() as session:
                ending.stop_trials(session, self._claimed.lease, end)
        return not (self._attempts or (end.waits_for_all and state.live_ids))

    def _store(self, end: ending.End) -> bool:
        self._is_closing.set()
        if self._attempts:  # a trial was brought in this very moment
            self._is_closing.clear()
            return False
        with self._database.unit_of_work() as session:
            ending.write(session, self._claimed.lease, end)
        return True

    def _begin(self, state: StudyState, claimed: ClaimedJob, *, after: TrialAttempt | None = None) -> TrialAttempt:
        """Return the attempt of a claimed trial; its lease is kept from now on, also while it waits for its place.

        The study does not end between two trials that follow one another: the new one is known before the old one goes.
        """
        me = ray.get_runtime_context().current_actor
        run = TrialAttempt(self._config, self._database, claimed, me, state, self._claimed.lease)
        self._attempts[run.key] = run.attempt
        if after is not None:
            del self._attempts[after.key]
        return run

    def _is_known(self, state: StudyState, trial_id: str) -> bool:
        if not state.knows(trial_id):
            with self._database.read() as session:
                state.sync(session, get(session, state.study_id)[1])
        return state.knows(trial_id)

    def _send_back(self, claimed: ClaimedJob, why: str) -> RunnerOutcome:
        with contextlib.suppress(LeaseLostError), self._database.unit_of_work() as session:
            queue.postpone(session, claimed.lease, delay_s=NOT_PLACED_DELAY_S, message=why)
        return RunnerOutcome.RANKS_CLEAN


def _is_time_spent(session: Session, job: Job, state: StudyState) -> bool:
    budget = state.spec.budget
    if budget.gpu_hours is not None and trials.gpu_hours(session, state.study_id) >= budget.gpu_hours:
        return True
    if budget.wall_s is None or job.started_at is None:
        return False
    return (utc_now() - job.started_at).total_seconds() >= budget.wall_s
