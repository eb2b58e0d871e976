"""What the API calls to submit, read and list jobs, and what jobs of all kinds share of it; `verbs` changes them."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from xsam.services.bundles import service as bundles
from xsam.services.cluster import service as cluster
from xsam.services.db.clock import db_now
from xsam.services.errors import ConflictError, InvalidRequestError, NotFoundError
from xsam.services.jobs import events, planes
from xsam.services.jobs.models import KIND_PLANE, KIND_STUDY, KIND_TRAINING, Job, JobAttempt
from xsam.services.jobs.states import JobState
from xsam.services.requirements import service as requirements
from xsam.services.secrets import service as secrets
from xsam.services.settings import NO_CODE, AllowedCode
from xsam.services.specs.base import Spec
from xsam.services.specs.dataset import CustomDataset
from xsam.services.specs.job import JobSpec
from xsam.services.specs.model import CustomModel, package_of
from xsam.services.specs.task import OwnTask
from xsam.services.teams import limits
from xsam.services.teams.roles import Actor


def submit(
    session: Session,
    spec: JobSpec,
    *,
    actor: Actor,
    allowed: AllowedCode = NO_CODE,
    idempotency_key: str | None = None,
    cloned_from: str | None = None,
) -> tuple[Job, bool]:
    """Queue a job and return it with whether it is new.

    A repeated submit with the same key and the same specification returns the first job.

    Raises:
        InvalidRequestError: the specification names code that is not allowed here, a secret that the team does not
            have, or a job to look at that can't be.
        InfeasibleError: the cluster, as last seen, or the team's quota could never hold it.
        ConflictError: the key was used for another specification.
    """
    spec = planes.filled(session, spec, team=actor.team)
    kind = KIND_TRAINING if spec.plane is None else KIND_PLANE
    earlier = earlier_submit(session, kind, spec, team=actor.team, key=idempotency_key)
    if earlier is not None:
        return earlier, False
    check_runnable(session, spec, team=actor.team, allowed=allowed, holds_team=True)
    job = new_job(
        kind,
        spec,
        trains=spec,
        name=spec.name,
        team=actor.team,
        submitted_by=actor.user,
        labels=spec.labels,
        priority=spec.priority,
        idempotency_key=idempotency_key,
    )
    message = f"queued by {actor.user}" + (f", from job {cloned_from}" if cloned_from else "")
    origin = {} if cloned_from is None else {"cloned_from": cloned_from}
    return add_once(session, job, spec, actor=actor.user, message=message, data=origin)


def check_runnable(
    session: Session, spec: JobSpec, *, team: str, allowed: AllowedCode, holds_team: bool = False
) -> None:
    """Refuse a job that could never run.

    Args:
        session: of the caller.
        spec: the job.
        team: whose it will be.
        allowed: which code it may name.
        holds_team: whether the team stays as it is until the caller's transaction ends.

    Raises:
        InvalidRequestError: the specification names code that is not allowed here, or a secret that the team does not
            have; names the field.
        InfeasibleError: the cluster, as last seen, or the team's quota could never hold it.
    """
    for field, part in (("task.target", spec.task), ("model.target", spec.model), ("dataset.target", spec.dataset)):
        if not isinstance(part, OwnTask | CustomModel | CustomDataset):
            continue
        if spec.code is None and package_of(part.target) not in allowed.packages:
            known = ", ".join(allowed.packages) or "none; the operator sets XSAM_TRAINING__ALLOWED_PACKAGES"
            raise InvalidRequestError(
                f"{field} is {part.target!r}; allowed packages are: {known} (or bring the code: `code: .`)", field=field
            )
    if spec.code is not None:
        bundles.check(session, spec.code.bundle, team=team, is_on=allowed.takes_bundles)
    if spec.requirements is not None:
        requirements.check(session, spec.requirements.lock, team=team, allowed=allowed)
    secrets.check(session, spec.secrets, team=team)
    cluster.check_feasible(session, spec.resources)
    limits.check_quota(limits.row_of(session, team, holds=holds_team), spec.resources)


def new_job(kind: str, spec: Spec, *, trains: JobSpec | None, **columns: Any) -> Job:
    """Return the row of a job of any kind.

    Args:
        kind: what it is.
        spec: what it says.
        trains: what it holds of the cluster, and for how long; None if it holds nothing itself.
        columns: who submitted it, and what people see of it.
    """
    held: dict[str, Any] = {"num_workers": 1, "gpus_per_worker": 0, "cpus_per_worker": 0, "num_epochs": 0}
    if trains is not None:
        epochs = trains.epochs if trains.plane is None else 1
        held = {**trains.resources.model_dump(), **trains.limits.model_dump(), "num_epochs": epochs}
        if trains.limits.max_queue_s is not None:
            held["deadline_at"] = db_now(trains.limits.max_queue_s)
        held |= {"optimizer": trains.optimizer.variant, "model": trains.model.name, "dataset": trains.dataset.name}
    columns["labels"] = dict(columns["labels"])
    return Job(kind=kind, spec=spec.model_dump(mode="json"), **held, **columns)


def add_once(
    session: Session, job: Job, spec: Spec, *, actor: str, message: str, data: dict[str, Any] | None = None
) -> tuple[Job, bool]:
    """Insert a job with its first event; return it with whether it is new.

    It is not where another request with the same key has inserted one since `earlier_submit` looked.

    Raises:
        ConflictError: the key was used for another specification.
    """
    try:
        with session.begin_nested() if job.idempotency_key is not None else nullcontext():
            session.add(job)
            session.flush()
    except IntegrityError:
        winner = earlier_submit(session, job.kind, spec, team=job.team, key=job.idempotency_key)
        if winner is None:
            raise
        return winner, False
    events.record(session, job.id, "submitted", message, actor=actor, data=data)
    return job, True


def earlier_submit(session: Session, kind: str, spec: Spec, *, team: str, key: str | None) -> Job | None:
    """Return the job that an earlier submit with this key made, None where there is none.

    Raises:
        ConflictError: the key was used for another specification.
    """
    if key is None:
        return None
    job = session.scalar(select(Job).where(Job.team == team, Job.idempotency_key == key))
    if job is not None and (job.kind != kind or _differs(job.spec, spec)):
        what = "study" if job.kind == KIND_STUDY else "job"
        raise ConflictError(
            f"Idempotency-Key {key!r} belongs to {what} {job.id}, which has another specification",
            field="Idempotency-Key",
        )
    return job


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


def running_jobs(session: Session) -> Sequence[Job]:
    """Return all that run, studies included."""
    return session.scalars(select(Job).where(Job.state == JobState.RUNNING)).all()


def list_attempts(session: Session, job_id: str) -> Sequence[JobAttempt]:
    """Return a job's attempts, oldest first."""
    return session.scalars(select(JobAttempt).where(JobAttempt.job_id == job_id).order_by(JobAttempt.number)).all()


def _differs(stored: dict[str, Any], spec: Spec) -> bool:
    """Compare as specifications: one that an earlier version stored lacks fields that have been added since."""
    try:
        return type(spec).model_validate(stored) != spec
    except ValidationError:
        return True
