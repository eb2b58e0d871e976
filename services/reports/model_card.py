"""The model card: everything known of how a job's weights came about, from rows and file names."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from xsam.services.artifacts.schemas import ArtifactRead, ModelCard
from xsam.services.artifacts.store import ArtifactKind, list_files
from xsam.services.bundles.models import BundleRow
from xsam.services.bundles.schemas import BundleRead
from xsam.services.jobs.models import Job, JobAttempt
from xsam.services.jobs.schemas import JobRead
from xsam.services.requirements import lines
from xsam.services.requirements import service as requirements
from xsam.services.stores.store import ArtifactStore


def describe(session: Session, job: Job, store: ArtifactStore) -> ModelCard:
    """Return the card of a job, finished or not."""
    read = JobRead.of(job)
    code = read.spec.code
    bundle = None if code is None else session.get(BundleRow, (job.team, code.bundle))
    weights = [file for file in list_files(store, job.id) if file.kind is ArtifactKind.WEIGHTS]
    return ModelCard(
        job_id=read.id,
        name=read.name,
        team=read.team,
        submitted_by=read.submitted_by,
        state=read.state,
        created_at=read.created_at,
        finished_at=read.finished_at,
        num_attempts=read.attempt,
        spec=read.spec,
        summary=read.summary,
        environment=_environment(session, job.id),
        packages=[] if read.spec.requirements is None else _packages(session, read.spec.requirements.lock),
        bundle=None if bundle is None else BundleRead.model_validate(bundle),
        weights=[ArtifactRead.model_validate(file) for file in weights],
    )


def _packages(session: Session, lock_id: str) -> list[str]:
    return lines.packages_of(requirements.lock_of(session, lock_id) or "")


def _environment(session: Session, job_id: str) -> dict[str, str]:
    query = (
        select(JobAttempt.environment)
        .where(JobAttempt.job_id == job_id, JobAttempt.environment.is_not(None))
        .order_by(JobAttempt.number.desc())
    )
    return session.scalar(query.limit(1)) or {}
