"""One trial's attempt: like any job's, but for how it ends. Its end and the next trial's start are one transaction."""

from typing import Any

from ray.actor import ActorHandle
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from xsam.services.db.session import Database
from xsam.services.errors import LeaseLostError
from xsam.services.jobs import queue
from xsam.services.jobs.models import Job
from xsam.services.jobs.queue import ClaimedJob, Lease
from xsam.services.specs.job import Resources
from xsam.services.studies import trials
from xsam.services.studies.trials import NewTrial, Result
from xsam.workers.messages import Report, RunnerConfig
from xsam.workers.runner.attempt import Attempt
from xsam.workers.runner.rank_group import Ending
from xsam.workers.studies.state import StudyState


class TrialAttempt(Attempt):
    """Runs one claimed trial; afterwards `following` is the trial that got its place, if any.

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
        super().__init__(config, database, claimed, runner, is_judged=state.is_judged(claimed.lease.job_id))
        self.following: ClaimedJob | None = None
        self._state = state
        self._study_lease = study_lease

    @property
    def key(self) -> tuple[str, int]:
        """What ranks name it by."""
        return self._claimed.lease.job_id, self._claimed.lease.attempt

    @property
    def resources(self) -> Resources:
        """What it takes."""
        return self._spec.resources

    @property
    def trial_id(self) -> str:
        """The trial's job id."""
        return self._claimed.lease.job_id

    def record(self, report: Report) -> None:
        """Take a report of rank 0; it is stored within a moment."""
        super().record(report)
        if report.kind == "epoch":
            self._state.report(self.trial_id, report.payload)

    def _store_end(self, ending: Ending) -> None:
        if not self._has_ended_well(ending):
            with self._database.unit_of_work() as session:
                self._write_end(session, ending)
                trials.keep_cost(session, self.trial_id)
            return
        self._state.note_success(self.trial_id)
        new = self._state.propose() if ending.is_clean else None
        try:
            with self._database.unit_of_work() as session:
                self.following = self._finish(session, ending, new)
        except (LeaseLostError, DBAPIError):
            self.following = None
            if new is not None:
                self._state.withdraw(new)
            raise

    def _has_ended_well(self, ending: Ending) -> bool:
        result = ending.result
        if result is None or result.failure_kind is not None:
            return False
        # A trial that the early stopper ends leaves its loop like a cancelled one.
        return result.stopped_by is None or (self.wish() is None and self._state.is_stopped(self.trial_id))

    def _finish(self, session: Session, ending: Ending, new: NewTrial | None) -> ClaimedJob | None:
        lease = self._claimed.lease
        left = session.get_one(Job, lease.job_id)
        place: dict[str, Any] = {"runner": left.runner or "", "nodes": left.placement or []}
        trials.finish(session, lease, self._result(ending))
        if new is None:
            return None
        queue.touch(session, self._study_lease)
        trials.add(session, self._study_lease.job_id, new)
        return trials.hand_over(
            session, self._study_lease, new.job_id, left=left, lease_s=self._config.lease_s, **place
        )

    def _result(self, ending: Ending) -> Result:
        summary = (ending.result.summary if ending.result is not None else None) or {}
        return Result(
            summary=summary,
            value=self._state.value_of(self.trial_id),
            is_stopped_early=self._state.is_stopped(self.trial_id),
        )
