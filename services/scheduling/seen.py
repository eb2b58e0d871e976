"""Jobs as the decision before saw them: the next one reads of each only what can have changed since.

A cluster of ten thousand GPUs runs as many jobs. Reading and building all of them anew for each decision takes most of
its time; what changes between two decisions is a handful of them.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from xsam.services.cluster.traits import NodeNeeds
from xsam.services.jobs.models import KIND_STUDY, Job, JobAttempt
from xsam.services.jobs.states import JobState
from xsam.services.scheduling.policy.types import PendingJob, RunningJob
from xsam.services.scheduling.run_times import RunTimes

PROGRESS_HOLDS_S = 5.0
"""How far running jobs are is read again after so long: it only moves the estimates of their ends."""
_LATE_S = 30.0
"""A transaction may become visible so long after the time that it wrote."""
_MAX_NAMED = 500
"""More new jobs than this are not named one by one: all are read."""

_Built = TypeVar("_Built")


class SeenJobs:
    """Kept from decision to decision by whoever decides. Not for several threads."""

    def __init__(self) -> None:
        self._rows: dict[str, Any] = {}
        self._progress: dict[str, Any] = {}
        self._progress_at: datetime | None = None
        self._built: dict[str, tuple[Any, Any]] = {}
        self._building: dict[str, tuple[Any, Any]] = {}

    def running(self, session: Session, now: datetime) -> Sequence[tuple[Any, Any, Any]]:
        """Return of each running job what can change, its row as of the start of its attempt, and how far it is."""
        live = session.execute(_LIVE).all()
        new = [row.id for row in live if row.id not in self._rows or self._rows[row.id].attempt != row.attempt]
        if new:
            named = _STARTED if len(new) > _MAX_NAMED else _STARTED.where(Job.id.in_(new))
            started = {row.id: row for row in session.execute(named)}
            self._rows |= started
            self._progress |= started
        if len(self._rows) > 2 * len(live):
            self._rows = {row.id: self._rows[row.id] for row in live if row.id in self._rows}
            self._progress = {job_id: self._progress[job_id] for job_id in self._rows}
        self._read_progress(session, now)
        # One that ended and began again between the two queries is there the next time.
        return [
            (row, self._rows[row.id], self._progress[row.id])
            for row in live
            if row.id in self._rows and self._rows[row.id].attempt == row.attempt
        ]

    def same(self, job_id: str, key: Any, build: Callable[[], _Built]) -> _Built:
        """Return what was built of a job the last time, if it was of the same."""
        known = self._built.get(job_id)
        if known is None or known[0] != key:
            known = (key, build())
        self._building[job_id] = known
        built: _Built = known[1]
        return built

    def forget_others(self) -> None:
        """Forget what was built of jobs that this decision did not see."""
        self._built, self._building = self._building, {}

    def _read_progress(self, session: Session, now: datetime) -> None:
        if self._progress_at is not None:
            if now - self._progress_at < timedelta(seconds=PROGRESS_HOLDS_S):
                return
            since = self._progress_at - timedelta(seconds=_LATE_S)
            for row in session.execute(_PROGRESS.where(Job.reported_at > since)):
                self._progress[row.id] = row
        self._progress_at = now


_IS_RUNNING = (Job.state == JobState.RUNNING, Job.kind != KIND_STUDY)
_HOW_FAR: tuple[Any, ...] = (
    Job.epochs_done,
    Job.num_epochs,
    Job.progress["step"].as_integer().label("step"),
    Job.reported_at,
)
_LIVE: Select[*tuple[Any, ...]] = select(
    Job.id, Job.attempt, Job.priority, Job.wish.is_not(None).label("is_stopping")
).where(*_IS_RUNNING)
_PROGRESS: Select[*tuple[Any, ...]] = select(Job.id, *_HOW_FAR).where(*_IS_RUNNING)
# Columns, not jobs: a job's specification is most of its row, and thousands of them took seconds to read.
_STARTED: Select[*tuple[Any, ...]] = (
    select(
        Job.id,
        Job.attempt,
        Job.team,
        Job.submitted_by,
        Job.placement,
        Job.gpus_per_worker,
        Job.cpus_per_worker,
        Job.max_run_s,
        Job.ran_s,
        *_HOW_FAR,
        JobAttempt.started_at.label("started_at"),
    )
    .join(JobAttempt, (JobAttempt.job_id == Job.id) & (JobAttempt.number == Job.attempt))
    .where(*_IS_RUNNING)
)


def pending_job(row: Any, run_times: RunTimes, seen: SeenJobs) -> PendingJob:
    """Return a queued job as the policy sees it."""
    left_s = run_times.left_s(row.id, share_done=row.epochs_done / row.num_epochs)
    key = (row.attempt, row.priority, row.scheduled_at, row.max_run_s, row.ran_s, left_s)
    return seen.same(row.id, key, lambda: _pending(row, left_s))


def running_job(live: Any, row: Any, progress: Any, run_times: RunTimes, seen: SeenJobs) -> RunningJob:
    """Return a running job as the policy sees it."""
    share_done = progress.epochs_done / progress.num_epochs
    left_s = run_times.left_s(row.id, share_done=share_done, step=progress.step or 0)
    key = (row.started_at, live.priority, live.is_stopping, left_s, None if left_s is None else progress.reported_at)
    return seen.same(row.id, key, lambda: _running(live, row, progress, left_s))


def _pending(row: Any, left_s: float | None) -> PendingJob:
    return PendingJob(
        job_id=row.id,
        team=row.team,
        user=row.submitted_by,
        priority=row.priority,
        submitted_at=row.created_at,
        num_workers=row.num_workers,
        gpus_per_worker=row.gpus_per_worker,
        cpus_per_worker=row.cpus_per_worker,
        eligible_at=row.scheduled_at,
        max_run_time_s=None if row.max_run_s is None else max(0.0, row.max_run_s - row.ran_s),
        expected_run_time_s=left_s,
        attempt=row.attempt + 1,
        needs=NodeNeeds.of(row.gpu_kind, row.min_gpu_memory_gb, row.node_labels),
    )


def _running(live: Any, row: Any, progress: Any, left_s: float | None) -> RunningJob:
    return RunningJob(
        job_id=row.id,
        team=row.team,
        user=row.submitted_by,
        priority=live.priority,
        started_at=row.started_at,
        node_ids=tuple(row.placement or ()),
        gpus_per_worker=row.gpus_per_worker,
        cpus_per_worker=row.cpus_per_worker,
        is_stopping=bool(live.is_stopping),
        max_run_time_s=None if row.max_run_s is None else max(0.0, row.max_run_s - row.ran_s),
        # Counted from the last sign of progress, when that much was done.
        expected_end_at=None if left_s is None else _reported(row, progress) + timedelta(seconds=left_s),
    )


def _reported(row: Any, progress: Any) -> datetime:
    at: datetime = progress.reported_at or row.started_at
    return at
