"""What the API shows of artifacts."""

from datetime import datetime

from pydantic import Field

from xsam.services.artifacts.store import ArtifactKind
from xsam.services.bundles.schemas import BundleRead
from xsam.services.jobs.states import JobState
from xsam.services.jobs.summary import TrainingSummary
from xsam.services.schemas import Read
from xsam.services.specs.job import JobSpec


class ArtifactRead(Read):
    """A file of a job."""

    name: str
    """Path below the job's folder; the last part of the download's address."""
    kind: ArtifactKind
    size_bytes: int
    modified_at: datetime


class GoneRead(Read):
    """Since when parts of a job are gone for good, since they were kept long enough; null where they are not."""

    checkpoints_at: datetime | None = None
    weights_at: datetime | None = None
    logs_at: datetime | None = None
    metrics_thinned_at: datetime | None = None
    """Since when only as many epochs and searches are there as a chart shows."""


class ArtifactsRead(Read):
    """The job's files."""

    items: list[ArtifactRead]
    gone: GoneRead


class ModelCard(Read):
    """Where a model comes from: enough to run the job again and to compare the outcome."""

    job_id: str
    name: str | None
    team: str
    submitted_by: str
    state: JobState
    created_at: datetime
    finished_at: datetime | None
    num_attempts: int
    spec: JobSpec
    """Submit it again to train the same model; on the same versions and kind of device, bit for bit."""
    summary: TrainingSummary | None
    environment: dict[str, str]
    """Versions and hardware of the last attempt that trained."""
    weights: list[ArtifactRead]
    bundle: BundleRead | None = None
    """The code that the job brought."""
    packages: list[str] = Field(default_factory=list)
    """Of that code's requirements, `name==version` each; empty where it had none."""
