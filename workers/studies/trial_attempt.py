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
from xsam.services.studies import trials
from xsam.services.studies.trials import NewTrial, Result
from xsam.workers.messages import Report, RunnerConfig
from xsam.workers.runner.attempt import Attempt
from xsam.workers.runner.rank_group import Ending
from xsam.workers.studies.state import Course


class TrialRun(Attempt):
    """Runs one claimed trial; afterwards `following` is the trial that got its place, if any.

    Args:
        config: the settings that matter here.
        database: the runner's own.
        claimed: the trial and its lease.
        runner: handle of the study's runner.
        course: the study.
        study_lease: of the study.
    """

    def __init__(
        self,
        config: RunnerConfig,
        database: Database,
        claimed: ClaimedJob,
        runner: ActorHandle,
        course: Course,
        study_lease: Lease,
    ) -> None:
        super().__init__(config, database, claimed, runner, is_judged=course.is_judged(claimed.lease.job_id))
        self.following: ClaimedJob | None = None
        self._course = course
        self._study_lease = study_lease

    @property
    def trial_id(self) -> str:
        """The trial's job id."""
        return self._claimed.lease.job_id

    def record(self, report: Report) -> None:
        """Take a report of rank 0; it is stored within a moment."""
        super().record(report)
        if report.kind == "epoch":
            self._course.desk.report(self.trial_id, report.payload)

    def verdict(self, epoch: int) -> bool:
        """Wait until it is decided whether the trial ends after this epoch; somebody's wish ends the wait."""
        while True:
            is_stopped = self._course.desk.wait_for_verdict(self.trial_id, epoch)
            if is_stopped is not None:
                return is_stopped
            if self.wish() is not None or self._lost.is_set():
                return False

    def _store_end(self, ending: Ending) -> None:
        if not self._has_ended_well(ending):
            with self._database.unit_of_work() as session:
                self._write_end(session, ending)
                trials.keep_cost(session, self.trial_id)
            return
        self._course.note_success(self.trial_id)
        new = self._course.propose() if ending.is_clean else None
        try:
            with self._database.unit_of_work() as session:
                self.following = self._finish(session, ending, new)
        except (LeaseLostError, DBAPIError):
            self.following = None
            if new is not None:
                self._course.withdraw(new)
            raise

    def _has_ended_well(self, ending: Ending) -> bool:
        result = ending.result
        if result is None or result.failure_kind is not None:
            return False
        # A trial that the early stopper ends leaves its loop like a cancelled one.
        return result.stopped_by is None or (self.wish() is None and self._course.desk.is_stopped(self.trial_id))

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
            value=self._course.value_of(self.trial_id),
            is_stopped_early=self._course.desk.is_stopped(self.trial_id),
        )
