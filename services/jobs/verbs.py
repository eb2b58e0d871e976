"""What the API calls to change jobs after their submit: one job at a time here, several at once in `bulk`."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from sqlalchemy.orm import Session

from xsam.services.cluster import service as cluster
from xsam.services.errors import InvalidRequestError, InvalidTransitionError
from xsam.services.jobs import wishes
from xsam.services.jobs.models import KIND_TRIAL, Job
from xsam.services.jobs.schemas import JobUpdate
from xsam.services.jobs.service import get, submit
from xsam.services.secrets import service as secrets
from xsam.services.settings import NO_CODE, AllowedCode
from xsam.services.specs.job import MAX_LABELS, JobSpec
from xsam.services.teams import limits
from xsam.services.teams.roles import Actor


def cancel(session: Session, job_id: str, *, actor: Actor) -> Job:
    """Cancel a job; one that runs is asked to stop and ends within seconds.

    Raises:
        NotFoundError: no such job.
        InvalidTransitionError: it has already ended otherwise.
    """
    get(session, job_id)
    wishes.request_cancel(session, job_id, actor=actor.user)
    return _fresh(session, job_id)


def pause(session: Session, job_id: str, *, actor: Actor) -> Job:
    """Hold a job; one that runs is asked to save its state and gives its resources back within seconds.

    Raises:
        NotFoundError: no such job.
        InvalidTransitionError: it has ended, or is being cancelled.
    """
    _check_is_its_own(get(session, job_id))
    wishes.request_pause(session, job_id, actor=actor.user)
    return _fresh(session, job_id)


def resume(session: Session, job_id: str, *, actor: Actor) -> Job:
    """Put a held job back in the queue; it goes on from its newest checkpoint.

    Raises:
        NotFoundError: no such job.
        InvalidTransitionError: it has ended.
    """
    _check_is_its_own(get(session, job_id))
    wishes.resume(session, job_id, actor=actor.user)
    return _fresh(session, job_id)


def retry(session: Session, job_id: str, *, actor: Actor) -> Job:
    """Queue a failed or cancelled job again, with fresh budgets; it goes on from its newest checkpoint.

    Raises:
        NotFoundError: no such job.
        InvalidTransitionError: it has not ended, or has succeeded.
        InvalidRequestError: its team does not have a secret any more that it names.
        InfeasibleError: the cluster, as last seen, or the team's quota could never hold it.
    """
    job = get(session, job_id)
    _check_is_its_own(job)
    spec = JobSpec.model_validate(job.spec)
    secrets.check(session, spec.secrets, team=job.team)
    cluster.check_feasible(session, spec.resources)
    limits.check_quota(limits.row_of(session, job.team, holds=True), spec.resources)
    wishes.retry(session, job_id, actor=actor.user)
    return _fresh(session, job_id)


def update(session: Session, job_id: str, change: JobUpdate, *, actor: Actor) -> Job:
    """Change priority and labels.

    Raises:
        NotFoundError: no such job.
        InvalidTransitionError: the priority of a job that has ended.
        InvalidRequestError: the job would have too many labels.
    """
    job = get(session, job_id)
    if change.labels is not None:
        kept = {key for key, value in {**job.labels, **change.labels}.items() if value is not None}
        if len(kept) > MAX_LABELS:
            message = f"the job would have {len(kept)} labels; allowed are at most {MAX_LABELS}"
            raise InvalidRequestError(message, field="labels")
        wishes.merge_labels(session, job_id, change.labels, actor=actor.user)
    if change.priority is not None:
        wishes.set_priority(session, job_id, change.priority, actor=actor.user)
    return _fresh(session, job_id)


def clone(
    session: Session,
    job_id: str,
    changes: Mapping[str, Any],
    *,
    actor: Actor,
    allowed: AllowedCode = NO_CODE,
    idempotency_key: str | None = None,
) -> tuple[Job, bool]:
    """Queue a new job from another one's specification with changes; return it with whether it is new.

    Args:
        session: open in a unit of work.
        job_id: the job to copy, in any state, with its present priority and labels.
        changes: as for `changed`.
        actor: whose job it becomes.
        allowed: as for `submit`.
        idempotency_key: as for `submit`.

    Raises:
        NotFoundError: no such job.
        InvalidRequestError: the changed specification is not valid; names the field. Also as for `submit`.
        InfeasibleError, ConflictError: as for `submit`.
    """
    source = get(session, job_id)
    document = {**source.spec, "priority": source.priority, "labels": source.labels}
    spec = changed(document, changes)
    return submit(
        session,
        spec,
        actor=actor,
        allowed=allowed,
        idempotency_key=idempotency_key,
        cloned_from=job_id,
    )


def changed(document: Mapping[str, Any], changes: Mapping[str, Any]) -> JobSpec:
    """Return a specification, given as plain values, with changes.

    Args:
        document: the specification.
        changes: a JSON merge patch (RFC 7396): parts are merged, null removes a field, which then has its default.

    Raises:
        InvalidRequestError: the whole would not be valid; names the field.
    """
    try:
        return JobSpec.model_validate(merge_patch(document, changes))
    except ValidationError as e:
        error = e.errors()[0]
        field = f"changes.{error.get('ctx', {}).get('field') or '.'.join(map(str, error['loc']))}"
        raise InvalidRequestError(f"{field}: {error['msg']}", field=field) from e


def merge_patch(target: Any, patch: Any) -> Any:
    """Return the target changed by a JSON merge patch: null removes, objects merge, all else replaces (RFC 7396)."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def _check_is_its_own(job: Job) -> None:
    if job.kind == KIND_TRIAL:
        raise InvalidTransitionError(f"job {job.id} is a trial; only its study can be told so")


def _fresh(session: Session, job_id: str) -> Job:
    return session.get_one(Job, job_id, populate_existing=True)
