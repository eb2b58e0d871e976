"""Changing jobs after their submit, one at a time and several at once; and seeing what one would take."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Body, Query, Response, status

from xsam.api.examples import SUBMIT_EXAMPLES
from xsam.api.http.access import visible_team
from xsam.api.http.dependencies import AllowedCodeDep, PrincipalDep, ReadSession, WriteSession
from xsam.api.http.queries import IdempotencyKey, JobCountQuery, JobId, SeveralMetricsQuery
from xsam.api.http.router import Router
from xsam.api.routes.jobs import wanted_jobs
from xsam.services.errors import NotFoundError
from xsam.services.jobs import bulk, verbs
from xsam.services.jobs import service as jobs
from xsam.services.jobs.bodies import CloneJob, JobSelection, JobsUpdate
from xsam.services.jobs.models import Job
from xsam.services.jobs.schemas import BulkRead, JobRead, JobUpdate
from xsam.services.jobs.states import JobState
from xsam.services.metrics import service as metrics
from xsam.services.metrics.schemas import JobMetrics, SeveralMetrics
from xsam.services.reports import job_preview, job_rows
from xsam.services.reports.job_preview import JobPreview
from xsam.services.reports.job_rows import JobCount
from xsam.services.specs.job import JobSpec

_ASKED: dict[int | str, dict[str, Any]] = {
    202: {"description": "It runs and was asked to; it follows within seconds.", "model": JobRead}
}

router = Router("/v1", "jobs")


@router.route("PATCH", "/jobs/{job_id}", "Change a job", refuses=("invalid_transition",))
def update_job(job_id: JobId, change: JobUpdate, session: WriteSession, principal: PrincipalDep) -> JobRead:
    """Change priority and labels, also while it runs. All of a call takes effect, or nothing."""
    return JobRead.of(verbs.update(session, job_id, change, actor=principal))


@router.route("POST", "/jobs/{job_id}/cancel", "Cancel a job", refuses=("invalid_transition",), answers=_ASKED)
def cancel_job(job_id: JobId, session: WriteSession, principal: PrincipalDep, response: Response) -> JobRead:
    """Cancel a job that waits, or ask a running one to stop. Cancelling twice is no error."""
    return _answer(response, verbs.cancel(session, job_id, actor=principal))


@router.route("POST", "/jobs/{job_id}/pause", "Pause a job", refuses=("invalid_transition",), answers=_ASKED)
def pause_job(job_id: JobId, session: WriteSession, principal: PrincipalDep, response: Response) -> JobRead:
    """Hold a job that waits, or ask a running one to save its state and give its resources back."""
    return _answer(response, verbs.pause(session, job_id, actor=principal))


@router.route("POST", "/jobs/{job_id}/resume", "Resume a job", refuses=("invalid_transition",))
def resume_job(job_id: JobId, session: WriteSession, principal: PrincipalDep) -> JobRead:
    """Put a paused job back in the queue; it goes on from its newest checkpoint."""
    return JobRead.of(verbs.resume(session, job_id, actor=principal))


@router.route("POST", "/jobs/{job_id}/retry", "Retry a job", refuses=("invalid_transition", "infeasible"))
def retry_job(job_id: JobId, session: WriteSession, principal: PrincipalDep) -> JobRead:
    """Queue a failed or cancelled job again, with fresh retry budgets, from its newest checkpoint."""
    return JobRead.of(verbs.retry(session, job_id, actor=principal))


@router.route(
    "POST",
    "/jobs/{job_id}/clone",
    "Clone a job",
    refuses=("conflict", "infeasible"),
    answers={200: {"description": "The job that an earlier call with this Idempotency-Key made.", "model": JobRead}},
    status_code=status.HTTP_201_CREATED,
)
def clone_job(  # noqa: PLR0913, PLR0917 - what the framework hands over
    job_id: JobId,
    wanted: CloneJob,
    session: WriteSession,
    allowed: AllowedCodeDep,
    principal: PrincipalDep,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> JobRead:
    """Queue a new job from this one's specification with changes, which is checked as a whole."""
    job, is_new = verbs.clone(
        session,
        job_id,
        wanted.changes,
        actor=principal,
        allowed=allowed,
        idempotency_key=idempotency_key,
    )
    if not is_new:
        response.status_code = status.HTTP_200_OK
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return JobRead.of(job)


@router.route("GET", "/jobs:count", "Count jobs", refuses=("not_found",))
def count_jobs(session: ReadSession, principal: PrincipalDep, query: Annotated[JobCountQuery, Query()]) -> JobCount:
    """Return how many jobs match, in all and by state, team or user; exact up to ten thousand of a group."""
    return job_rows.count(session, where=wanted_jobs(session, principal, query), by=query.by)


@router.route("GET", "/jobs:metrics", "Read several jobs' epochs", refuses=("not_found",))
def list_several_metrics(
    session: ReadSession, principal: PrincipalDep, query: Annotated[SeveralMetricsQuery, Query()]
) -> SeveralMetrics:
    """Return what each epoch of some jobs has measured, to compare them."""
    wanted = list(dict.fromkeys(query.job))
    for job_id in wanted:
        if not principal.sees(jobs.get(session, job_id).team):
            raise NotFoundError(f"no job {job_id}", field="job_id")
    found = [
        JobMetrics(job_id=job_id, items=list(metrics.list_epochs(session, job_id, points=query.points)))
        for job_id in wanted
    ]
    return SeveralMetrics(items=found)


@router.route("POST", "/jobs:cancel", "Cancel several jobs")
def cancel_jobs(wanted: JobSelection, session: WriteSession, principal: PrincipalDep) -> BulkRead:
    """Cancel jobs; each has its own result, and one that is refused stops none of the others."""
    return _bulk(bulk.cancel, wanted, session, principal)


@router.route("POST", "/jobs:pause", "Pause several jobs")
def pause_jobs(wanted: JobSelection, session: WriteSession, principal: PrincipalDep) -> BulkRead:
    """Hold jobs; each has its own result."""
    return _bulk(bulk.pause, wanted, session, principal)


@router.route("POST", "/jobs:resume", "Resume several jobs")
def resume_jobs(wanted: JobSelection, session: WriteSession, principal: PrincipalDep) -> BulkRead:
    """Put paused jobs back in the queue; each has its own result."""
    return _bulk(bulk.resume, wanted, session, principal)


@router.route("POST", "/jobs:retry", "Retry several jobs")
def retry_jobs(wanted: JobSelection, session: WriteSession, principal: PrincipalDep) -> BulkRead:
    """Queue failed and cancelled jobs again; each has its own result."""
    return _bulk(bulk.retry, wanted, session, principal)


@router.route("POST", "/jobs:update", "Change several jobs")
def update_jobs(wanted: JobsUpdate, session: WriteSession, principal: PrincipalDep) -> BulkRead:
    """Change priority and labels of jobs; each has its own result."""
    selection = wanted.chosen(_seen(wanted, principal))
    if wanted.dry_run:
        return bulk.count(session, selection)
    return bulk.update(session, selection, wanted.change, actor=principal)


@router.route("POST", "/jobs:preview", "See what a job would take", refuses=("infeasible",))
def preview_job(
    spec: Annotated[JobSpec, Body(openapi_examples=SUBMIT_EXAMPLES)],
    session: ReadSession,
    allowed: AllowedCodeDep,
    principal: PrincipalDep,
) -> JobPreview:
    """Count gradient evaluations and probes, predict time from earlier runs, look at the queue; nothing is queued."""
    return job_preview.preview(session, spec, team=principal.team, allowed=allowed)


def _answer(response: Response, job: Job) -> JobRead:
    if job.state == JobState.RUNNING:
        response.status_code = status.HTTP_202_ACCEPTED
    return JobRead.of(job)


def _bulk(
    act: Callable[..., BulkRead], wanted: JobSelection, session: WriteSession, principal: PrincipalDep
) -> BulkRead:
    selection = wanted.chosen(_seen(wanted, principal))
    return bulk.count(session, selection) if wanted.dry_run else act(session, selection, actor=principal)


def _seen(wanted: JobSelection, principal: PrincipalDep) -> str | None:
    return visible_team(principal, None if wanted.where is None else wanted.where.team)
