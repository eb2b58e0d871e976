"""What the doors call to submit, read and list jobs; `verbs` has what changes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Select, select, tuple_
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from xsam.services import paging as cursors
from xsam.services.cluster import service as cluster
from xsam.services.db.clock import db_now
from xsam.services.errors import ConflictError, InvalidRequestError, NotFoundError
from xsam.services.jobs import events
from xsam.services.jobs.models import KIND_STUDY, KIND_TRAINING, Job, JobAttempt
from xsam.services.jobs.states import JobState
from xsam.services.specs.dataset import CustomDataset
from xsam.services.specs.job import JobSpec
from xsam.services.specs.model import CustomModel, package_of
from xsam.services.teams import limits
from xsam.services.teams.roles import Actor


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs a list shows; empty fields filter nothing. Trials of studies have lists of their own."""

    states: Sequence[JobState] = ()
    team: str | None = None
    name: str | None = None
    labels: Mapping[str, str] | None = None


def submit(
    session: Session,
    spec: JobSpec,
    *,
    actor: Actor,
    allowed_packages: Sequence[str] = (),
    idempotency_key: str | None = None,
    cloned_from: str | None = None,
) -> tuple[Job, bool]:
    """Queue a job and return it with whether it is new.

    A repeated submit with the same key and the same specification returns the first job.

    Raises:
        InvalidRequestError: the specification names code that is not allowed here.
        InfeasibleError: the cluster, as last seen, or the team's quota could never hold it.
        ConflictError: the key was used for another specification.
    """
    earlier = _earlier_submit(session, spec, actor, idempotency_key)
    if earlier is not None:
        return earlier, False
    check_targets(spec, allowed_packages)
    cluster.check_feasible(session, spec.resources)
    limits.check_quota(session, actor.team, spec.resources)
    job = _new_job(spec, actor, idempotency_key)
    winner = _insert(session, job, spec, actor)
    if winner is not None:
        return winner, False
    origin = {} if cloned_from is None else {"cloned_from": cloned_from}
    message = f"queued by {actor.user}" + (f", from job {cloned_from}" if cloned_from else "")
    events.record(session, job.id, "submitted", message, actor=actor.user, data=origin)
    return job, True


def _insert(session: Session, job: Job, spec: JobSpec, actor: Actor) -> Job | None:
    """Insert the job; return the one with the same key that another request inserted between our look and now."""
    if job.idempotency_key is None:
        session.add(job)
        session.flush()
        return None
    try:
        with session.begin_nested():
            session.add(job)
            session.flush()
    except IntegrityError:
        winner = _earlier_submit(session, spec, actor, job.idempotency_key)
        if winner is None:
            raise
        return winner
    return None


def get(session: Session, job_id: str) -> Job:
    """Return a job, a study's trial included.

    Raises:
        NotFoundError: no such job.
    """
    job = session.get(Job, job_id)
    if job is None:
        raise NotFoundError(f"no job {job_id}", field="job_id")
    if job.kind == KIND_STUDY:
        raise NotFoundError(f"{job_id} is a study, not a job; read it at /v1/studies/{job_id}", field="job_id")
    return job


def team_of(session: Session, job_id: str) -> str | None:
    """Return the team whose job it is; None where there is no such job."""
    return session.scalar(select(Job.team).where(Job.id == job_id))


def list_attempts(session: Session, job_id: str) -> Sequence[JobAttempt]:
    """Return a job's attempts, oldest first."""
    return session.scalars(select(JobAttempt).where(JobAttempt.job_id == job_id).order_by(JobAttempt.number)).all()


def list_jobs(
    session: Session, *, where: JobFilter, cursor: str | None = None, limit: int = 50
) -> tuple[Sequence[Job], str | None]:
    """Return a page of jobs, newest first, and the cursor of the next page (None on the last).

    Raises:
        InvalidRequestError: the cursor is not one of ours.
    """
    query = _filtered(where).order_by(Job.created_at.desc(), Job.id.desc()).limit(limit + 1)
    if cursor is not None:
        created_at, job_id = cursors.decode(cursor)
        query = query.where(tuple_(Job.created_at, Job.id) < tuple_(created_at, job_id))
    rows = session.scalars(query).all()
    page = rows[:limit]
    more = len(rows) > limit
    return page, cursors.encode(page[-1].created_at, page[-1].id) if more else None


def check_targets(spec: JobSpec, allowed_packages: Sequence[str]) -> None:
    """Refuse code of the team's own that the operator has not allowed.

    Raises:
        InvalidRequestError: names the field.
    """
    for field, part in (("model.target", spec.model), ("dataset.target", spec.dataset)):
        if not isinstance(part, CustomModel | CustomDataset):
            continue
        if package_of(part.target) not in allowed_packages:
            allowed = ", ".join(allowed_packages) or "none; the operator sets XSAM_TRAINING__ALLOWED_PACKAGES"
            raise InvalidRequestError(f"{field} is {part.target!r}; allowed packages are: {allowed}", field=field)


def _earlier_submit(session: Session, spec: JobSpec, actor: Actor, key: str | None) -> Job | None:
    if key is None:
        return None
    job = session.scalar(select(Job).where(Job.team == actor.team, Job.idempotency_key == key))
    if job is not None and _differs(job.spec, spec):
        raise ConflictError(
            f"Idempotency-Key {key!r} belongs to job {job.id}, which has another specification", field="Idempotency-Key"
        )
    return job


def _differs(stored: dict[str, Any], spec: JobSpec) -> bool:
    """Compare as specifications: one that an earlier version stored lacks fields that have been added since."""
    try:
        return JobSpec.model_validate(stored) != spec
    except ValidationError:
        return True


def _new_job(spec: JobSpec, actor: Actor, key: str | None) -> Job:
    return Job(
        name=spec.name,
        team=actor.team,
        submitted_by=actor.user,
        idempotency_key=key,
        spec=spec.model_dump(mode="json"),
        labels=dict(spec.labels),
        priority=spec.priority,
        num_workers=spec.resources.num_workers,
        gpus_per_worker=spec.resources.gpus_per_worker,
        cpus_per_worker=spec.resources.cpus_per_worker,
        max_run_s=spec.limits.max_run_s,
        max_queue_s=spec.limits.max_queue_s,
        deadline_at=None if spec.limits.max_queue_s is None else db_now(spec.limits.max_queue_s),
        num_epochs=spec.epochs,
    )


def _filtered(where: JobFilter) -> Select[Job]:
    query = select(Job).where(Job.kind == KIND_TRAINING)
    if where.states:
        query = query.where(Job.state.in_(where.states))
    if where.team is not None:
        query = query.where(Job.team == where.team)
    if where.name is not None:
        query = query.where(Job.name == where.name)
    for key, value in (where.labels or {}).items():
        query = query.where(Job.labels[key].as_string() == value)
    return query
