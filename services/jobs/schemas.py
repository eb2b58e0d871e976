"""What the API shows of jobs; what it takes is `xsam.services.specs.job.JobSpec`."""

from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field

from xsam.services.jobs.hints import hint
from xsam.services.jobs.models import Job, JobEvent
from xsam.services.jobs.states import FailureKind, JobState, Wish
from xsam.services.jobs.summary import TrainingSummary
from xsam.services.schemas import Read
from xsam.services.specs.job import MAX_LABELS, JobSpec, LabelKey, LabelValue, Priority


class JobUpdate(BaseModel):
    """Changes of a job that is queued, paused or running; labels also of one that has ended."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    priority: Priority | None = None
    """Higher goes first."""
    labels: Annotated[dict[LabelKey, LabelValue | None], Field(max_length=MAX_LABELS)] | None = None
    """Labels to set; null removes one, those that are not named stay."""


class ProgressRead(Read):
    """How far a job is."""

    epochs_done: int
    num_epochs: int
    step: int | None = None
    """Training steps done since the start of the run."""
    steps_per_epoch: int | None = None
    loss: float | None = None
    """Loss of a recent training step."""


class FailureRead(Read):
    """Why a job failed."""

    kind: FailureKind
    message: str
    hint: str
    """What a person can do about it."""


class GpuUseRead(Read):
    """What a running job's GPUs did when they were last measured."""

    utilization: float
    """Mean over them, 0 to 1."""
    used_bytes: int
    """Of their memory, in sum."""
    total_bytes: int
    seen_at: datetime


class JobRead(Read):
    """A job and where it stands."""

    id: str
    name: str | None
    team: str
    submitted_by: str
    state: JobState
    priority: int
    labels: dict[str, str]
    created_at: datetime
    scheduled_at: datetime
    """A queued job does not start before this instant."""
    started_at: datetime | None
    finished_at: datetime | None
    attempt: int
    """Number of the current or last attempt; 0 before the first."""
    state_since: datetime
    wish: Wish | None
    """What the runner has been asked to do, until it has done it."""
    progress: ProgressRead
    gpu_use: GpuUseRead | None
    """Of a running job whose GPUs are measured."""
    idle_warned_at: datetime | None
    """Since when its GPUs are known to be idle."""
    summary: TrainingSummary | None
    failure: FailureRead | None
    spec: JobSpec

    @classmethod
    def of(cls, job: Job) -> Self:
        """Return the document for a row."""
        own = ("progress", "failure", "spec", "gpu_use")
        plain = {name: getattr(job, name) for name in cls.model_fields if name not in own}
        spec = JobSpec.model_validate(job.spec)
        progress = {"epochs_done": job.epochs_done, "num_epochs": job.num_epochs, **job.progress}
        failure = None
        if job.failure_kind is not None:
            kind = FailureKind.of(job.failure_kind)
            failure = {"kind": kind, "message": job.failure_message or "", "hint": hint(kind, spec)}
        use = _gpu_use(job)
        return cls.model_validate({**plain, "progress": progress, "gpu_use": use, "failure": failure, "spec": spec})


def _gpu_use(job: Job) -> GpuUseRead | None:
    utilization, used, total, at = job.gpu_utilization, job.gpu_used_bytes, job.gpu_total_bytes, job.gpu_seen_at
    if utilization is None or used is None or total is None or at is None:
        return None
    return GpuUseRead(utilization=utilization, used_bytes=used, total_bytes=total, seen_at=at)


class EventRead(Read):
    """Something that happened to a job."""

    id: int
    """Grows with time; pass it as `after` to read on."""
    at: datetime
    kind: str
    actor: str
    message: str
    data: dict[str, Any]

    @classmethod
    def of(cls, event: JobEvent) -> Self:
        """Return the document for a row."""
        return cls.model_validate(event)


class JobPage(Read):
    """A page of jobs."""

    items: list[JobRead]
    next_cursor: str | None
    """Pass it as `cursor`, with the same `sort`, for the next page; null on the last."""
    previous_cursor: str | None = None
    """The same for the page before; null on the first."""


class EventPage(Read):
    """The job's events after the one asked for, oldest first."""

    items: list[EventRead]


class BulkItem(Read):
    """What one of several jobs answered."""

    job_id: str
    is_done: bool
    state: JobState | None
    """The job's state afterwards; null where there is no such job."""
    code: str | None = None
    """Why it was refused, for programs; a code of the problem documents."""
    message: str | None = None
    """Why it was refused, for people."""


class BulkCount(Read):
    """Which jobs a verb would be tried on; each may still refuse it."""

    num: int
    num_by_state: dict[JobState, int]
    num_by_user: dict[str, int]


class BulkRead(Read):
    """What each of several jobs answered."""

    items: list[BulkItem]
    has_more: bool
    """More jobs match than one call changes: repeat it."""
    would: BulkCount | None = None
    """Of a dry run, instead of items."""


class AttemptRead(Read):
    """One run of a job, from its start to its end."""

    number: int
    started_at: datetime
    first_step_at: datetime | None
    """When its first training step had finished."""
    finished_at: datetime | None
    outcome: str | None
    """`succeeded`, a kind of failure, or `not_placed`; null while it runs."""
    message: str | None
    traceback: str | None


class AttemptsRead(Read):
    """A job's attempts, oldest first."""

    items: list[AttemptRead]
