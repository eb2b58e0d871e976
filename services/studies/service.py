"""What the API calls for studies: submit, read, list; the verbs are in `verbs`, the answers in `answers`."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from xsam.services import paging
from xsam.services.errors import InfeasibleError, InvalidRequestError, NotFoundError
from xsam.services.jobs import service as jobs
from xsam.services.jobs.models import KIND_STUDY, Job
from xsam.services.jobs.service import JobFilter
from xsam.services.studies.models import Study
from xsam.services.studies.spec import StudySpec
from xsam.services.teams.roles import Actor


def submit(
    session: Session,
    spec: StudySpec,
    *,
    actor: Actor,
    allowed_packages: Sequence[str] = (),
    idempotency_key: str | None = None,
) -> tuple[Job, bool]:
    """Queue a study and return its row with whether it is new.

    A repeated submit with the same key and the same specification returns the first study.

    Raises:
        InvalidRequestError: the base job names code that is not allowed here.
        InfeasibleError: the cluster, as last seen, or the team's quota could never hold a trial.
        ConflictError: the key was used for another specification.
    """
    earlier = jobs.earlier_submit(session, KIND_STUDY, spec, team=actor.team, key=idempotency_key)
    if earlier is not None:
        return earlier, False
    check_runnable(session, spec, team=actor.team, allowed_packages=allowed_packages)
    job = jobs.new_job(
        KIND_STUDY,
        spec,
        trains=None,  # its trials do
        name=spec.name,
        team=actor.team,
        submitted_by=actor.user,
        labels=spec.base.labels,
        priority=spec.base.priority,
        idempotency_key=idempotency_key,
    )
    job, is_new = jobs.add_once(session, job, spec, actor=actor.user, message=f"queued by {actor.user}")
    if is_new:
        space = {path: dimension.model_dump(mode="json") for path, dimension in spec.space.items()}
        session.add(Study(job_id=job.id, num_configs=spec.num_configs, space=space, concurrency=spec.concurrency))
        session.flush()
    return job, is_new


def check_runnable(session: Session, spec: StudySpec, *, team: str, allowed_packages: Sequence[str]) -> None:
    """Refuse a study whose trials could never run.

    Raises:
        InvalidRequestError: the base job names code that is not allowed here.
        InfeasibleError: the cluster, as last seen, or the team's quota could never hold a trial.
    """
    try:
        jobs.check_runnable(session, spec.base, team=team, allowed_packages=allowed_packages)
    except (InvalidRequestError, InfeasibleError) as e:
        raise type(e)(e.message, field=None if e.field is None else f"base.{e.field}") from e


def get(session: Session, study_id: str, *, lock: bool = False) -> tuple[Job, Study]:
    """Return a study's two rows, on request locked until the transaction ends.

    Raises:
        NotFoundError: no such study.
    """
    query = select(Job, Study).join(Study, Study.job_id == Job.id).where(Job.id == study_id)
    found = session.execute(query.with_for_update() if lock else query).one_or_none()
    if found is None:
        raise NotFoundError(f"no study {study_id}", field="study_id")
    return found[0], found[1]


def spec_of(job: Job) -> StudySpec:
    """Return a study's specification, as it was submitted."""
    return StudySpec.model_validate(job.spec)


def list_studies(
    session: Session, *, where: JobFilter, cursor: str | None = None, limit: int = 50
) -> tuple[Sequence[tuple[Job, Study]], str | None]:
    """Return a page of studies, newest first, and the cursor of the next page (None on the last).

    Raises:
        InvalidRequestError: the cursor is not one of ours.
    """
    query = jobs.filtered(select(Job, Study).join(Study, Study.job_id == Job.id), where)
    rows, next_cursor = paging.newest_first(session, query, Job, cursor=cursor, limit=limit)
    return [(row[0], row[1]) for row in rows], next_cursor
