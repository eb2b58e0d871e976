"""What the doors call for studies: submit, read, list; the verbs are in `verbs`, the answers in `answers`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select, tuple_
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from xsam.services import paging as cursors
from xsam.services.cluster import service as cluster
from xsam.services.errors import ConflictError, InfeasibleError, InvalidRequestError, NotFoundError
from xsam.services.jobs import events
from xsam.services.jobs.models import KIND_STUDY, Job
from xsam.services.jobs.service import check_targets
from xsam.services.jobs.states import JobState
from xsam.services.studies.models import Study
from xsam.services.studies.spec import StudySpec
from xsam.services.teams import limits
from xsam.services.teams.roles import Actor


@dataclass(frozen=True, slots=True)
class StudyFilter:
    """Which studies a list shows; empty fields filter nothing."""

    states: Sequence[JobState] = ()
    team: str | None = None
    name: str | None = None
    labels: Mapping[str, str] | None = None


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
    earlier = _earlier_submit(session, spec, actor, idempotency_key)
    if earlier is not None:
        return earlier, False
    check_runnable(session, spec, team=actor.team, allowed_packages=allowed_packages)
    job = _new_job(spec, actor, idempotency_key)
    try:
        with session.begin_nested():
            session.add(job)
            session.flush()
    except IntegrityError:
        # Another request with the same key won between our look and our insert.
        earlier = _earlier_submit(session, spec, actor, idempotency_key)
        if earlier is None:
            raise
        return earlier, False
    space = {path: dimension.model_dump(mode="json") for path, dimension in spec.space.items()}
    session.add(Study(job_id=job.id, num_configs=spec.num_configs, space=space, concurrency=spec.concurrency))
    events.record(session, job.id, "submitted", f"queued by {actor.user}", actor=actor.user)
    session.flush()
    return job, True


def check_runnable(session: Session, spec: StudySpec, *, team: str, allowed_packages: Sequence[str]) -> None:
    """Refuse a study whose trials could never run.

    Raises:
        InvalidRequestError: the base job names code that is not allowed here.
        InfeasibleError: the cluster, as last seen, or the team's quota could never hold a trial.
    """
    try:
        check_targets(spec.base, allowed_packages)
        cluster.check_feasible(session, spec.base.resources)
        limits.check_quota(session, team, spec.base.resources)
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
    session: Session, *, where: StudyFilter, cursor: str | None = None, limit: int = 50
) -> tuple[Sequence[tuple[Job, Study]], str | None]:
    """Return a page of studies, newest first, and the cursor of the next page (None on the last).

    Raises:
        InvalidRequestError: the cursor is not one of ours.
    """
    query = select(Job, Study).join(Study, Study.job_id == Job.id)
    if where.states:
        query = query.where(Job.state.in_(where.states))
    if where.team is not None:
        query = query.where(Job.team == where.team)
    if where.name is not None:
        query = query.where(Job.name == where.name)
    for key, value in (where.labels or {}).items():
        query = query.where(Job.labels[key].as_string() == value)
    if cursor is not None:
        created_at, job_id = cursors.decode(cursor)
        query = query.where(tuple_(Job.created_at, Job.id) < tuple_(created_at, job_id))
    rows = session.execute(query.order_by(Job.created_at.desc(), Job.id.desc()).limit(limit + 1)).all()
    page = [(row[0], row[1]) for row in rows[:limit]]
    return page, cursors.encode(page[-1][0].created_at, page[-1][0].id) if len(rows) > limit else None


def _earlier_submit(session: Session, spec: StudySpec, actor: Actor, key: str | None) -> Job | None:
    if key is None:
        return None
    job = session.scalar(select(Job).where(Job.team == actor.team, Job.idempotency_key == key))
    if job is not None and (job.kind != KIND_STUDY or job.spec != spec.model_dump(mode="json")):
        raise ConflictError(
            f"Idempotency-Key {key!r} belongs to {job.kind} {job.id}, which has another specification",
            field="Idempotency-Key",
        )
    return job


def _new_job(spec: StudySpec, actor: Actor, key: str | None) -> Job:
    """Return the row; a study itself holds nothing of the cluster, its trials do."""
    return Job(
        kind=KIND_STUDY,
        name=spec.name,
        team=actor.team,
        submitted_by=actor.user,
        idempotency_key=key,
        spec=spec.model_dump(mode="json"),
        labels=dict(spec.base.labels),
        priority=spec.base.priority,
        num_workers=1,
        gpus_per_worker=0,
        cpus_per_worker=0,
        num_epochs=0,
    )
