"""How a trial's attempt ends, unlike any other job's: its end and the next trial's start are one transaction."""

from functools import partial
from typing import Any

from ray.actor import ActorHandle
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from xsam.services.db.session import Database
from xsam.services.errors import LeaseLostError
from xsam.services.jobs import queue
from xsam.services.jobs.models import Job
from xsam.services.jobs.queue import ClaimedJob, Lease
from xsam.services.studies import trials
from xsam.services.studies.trials import NewTrial, Result
from xsam.workers.messages import RunnerConfig, StopReason
from xsam.workers.runner.attempt import Attempt, write_end
from xsam.workers.runner.rank_group import GroupEnding
from xsam.workers.studies.state import StudyState


class TrialAttempt:
    """A claimed trial and its attempt; afterwards `following` is the trial that got its place, if any.

    Args:
        config: the settings that matter here.
        database: the runner's own.
        claimed: the trial and its lease.
        runner: handle of the study's runner.
        state: the study.
        study_lease: of the study.
    """

    def __init__(
        self,
        config: RunnerConfig,
        database: Database,
        claimed: ClaimedJob,
        runner: ActorHandle,
        state: StudyState,
        study_lease: Lease,
    ) -> None:
        self.claimed = claimed
        self.following: ClaimedJob | None = None
        self._lease = claimed.lease
        self._lease_s = config.lease_s
        self._database = database
        self._state = state
        self._study_lease = study_lease
        self.attempt = Attempt(
            config,
            database,
            claimed,
            runner,
            is_judged=state.is_judged(claimed.lease.job_id),
            on_epoch=partial(state.report, claimed.lease.job_id),
            finish=self._finish,
        )

    @property
    def key(self) -> tuple[str, int]:
        """What ranks name it by."""
        return self._lease.job_id, self._lease.attempt

    def _finish(self, ending: GroupEnding) -> None:
        """Store the end. What comes next is found out before the transaction, which holds locks."""
        trial_id = self._lease.job_id
        if not _has_ended_well(ending):
            with self._database.unit_of_work() as session:
                write_end(session, self._lease, ending)
                trials.keep_cost(session, trial_id)
            return
        self._state.note_success(trial_id)
        new = self._state.propose() if ending.is_clean else None
        try:
            with self._database.unit_of_work() as session:
                self.following = self._store(session, ending, new)
        except (LeaseLostError, DBAPIError):
            self.following = None
            if new is not None:
                self._state.withdraw(new)
            raise

    def _store(self, session: Session, ending: GroupEnding, new: NewTrial | None) -> ClaimedJob | None:
        left = session.get_one(Job, self._lease.job_id)
        place: dict[str, Any] = {"runner": left.runner or "", "nodes": left.placement or []}
        trials.finish(session, self._lease, self._result(ending))
        if new is None:
            return None
        queue.touch(session, self._study_lease)
        trials.add(session, self._study_lease.job_id, new)
        return trials.hand_over(session, self._study_lease, new.job_id, left=left, lease_s=self._lease_s, **place)

    def _result(self, ending: GroupEnding) -> Result:
        return Result(
            summary=(ending.result.summary if ending.result is not None else None) or {},
            value=self._state.value_of(self._lease.job_id),
            is_stopped_early=self._state.is_stopped(self._lease.job_id),
        )


def _has_ended_well(ending: GroupEnding) -> bool:
    result = ending.result
    return result is not None and result.failure_kind is None and result.stopped_by in (None, StopReason.EARLY)
