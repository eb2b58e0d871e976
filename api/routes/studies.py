"""Studies: submit, preview, read, tell them things, and read their trials."""

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Query, Response, status

from xsam.api.examples import STUDY_EXAMPLES
from xsam.api.http.access import visible_team
from xsam.api.http.dependencies import PrincipalDep, ReadSession, ServiceDep, WriteSession, no_query
from xsam.api.http.problems import documented
from xsam.api.http.queries import IdempotencyKey
from xsam.api.http.study_queries import ExportFormat, ExportQuery, StudiesQuery, StudyId, TrialsQuery
from xsam.services.jobs import service as jobs
from xsam.services.jobs.schemas import JobRead
from xsam.services.studies import cost, export, promotion, reading, service, verbs
from xsam.services.studies.requests import ExtendStudy, PromoteStudy, RetryFailed, UpdateStudy
from xsam.services.studies.schemas import StudyPage, StudyPreview, StudyRead, TrialPage
from xsam.services.studies.spec import StudySpec
from xsam.services.studies.views import PlotsRead

_BODY_CODES = ("malformed_body", "body_too_large", "unsupported_media_type", "validation_failed", "invalid_request")
_EXPORT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "One row for each trial, a `params.` column for each searched field.",
        "content": {
            "text/csv": {"schema": {"type": "string"}},
            "application/vnd.apache.parquet": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}

router = APIRouter(
    prefix="/v1/studies",
    tags=["studies"],
    responses=documented("validation_failed", "invalid_request", "database_unavailable", "internal_error"),
)


@router.post(
    "",
    operation_id="submitStudy",
    summary="Submit a study",
    status_code=status.HTTP_201_CREATED,
    responses={
        200: {"description": "The study that an earlier submit with this Idempotency-Key made.", "model": StudyRead},
        **documented(*_BODY_CODES, "conflict", "infeasible"),
    },
    dependencies=[Depends(no_query)],
)
def submit_study(
    spec: Annotated[StudySpec, Body(openapi_examples=STUDY_EXAMPLES)],
    session: WriteSession,
    service_parts: ServiceDep,
    principal: PrincipalDep,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> StudyRead:
    """Queue a hyperparameter search. `{"preset": "rho"}` is a whole one."""
    job, is_new = service.submit(
        session,
        spec,
        actor=principal,
        allowed_packages=service_parts.settings.training.allowed_packages,
        idempotency_key=idempotency_key,
    )
    if not is_new:
        response.status_code = status.HTTP_200_OK
    response.headers["Location"] = f"{router.prefix}/{job.id}"
    return reading.read_study(session, job.id)


@router.get("", operation_id="listStudies", summary="List studies")
def list_studies(session: ReadSession, principal: PrincipalDep, query: Annotated[StudiesQuery, Query()]) -> StudyPage:
    """Return a page of the team's studies (of all teams', for admins), newest first."""
    where = replace(query.as_study_filter(), team=visible_team(principal, query.team))
    return reading.list_studies(session, where=where, cursor=query.cursor, limit=query.limit)


@router.get(
    "/{study_id}",
    operation_id="getStudy",
    summary="Read a study",
    responses=documented("not_found"),
    dependencies=[Depends(no_query)],
)
def get_study(study_id: StudyId, session: ReadSession) -> StudyRead:
    """Return a study: what is best, how arms compare, how far it is, what it has cost and what is to come."""
    return reading.read_study(session, study_id)


@router.patch(
    "/{study_id}",
    operation_id="updateStudy",
    summary="Change a study",
    responses=documented(*_BODY_CODES, "not_found", "invalid_transition"),
    dependencies=[Depends(no_query)],
)
def update_study(study_id: StudyId, change: UpdateStudy, session: WriteSession, principal: PrincipalDep) -> StudyRead:
    """Let more or fewer trials run at once; running ones are never interrupted for it."""
    verbs.set_concurrency(session, study_id, change.concurrency, actor=principal)
    return reading.read_study(session, study_id)


@router.post(
    "/{study_id}/pause",
    operation_id="pauseStudy",
    summary="Pause a study",
    responses=documented("not_found", "invalid_transition"),
    dependencies=[Depends(no_query)],
)
def pause_study(study_id: StudyId, session: WriteSession, principal: PrincipalDep) -> StudyRead:
    """Start no new trials; the running ones finish."""
    verbs.pause(session, study_id, actor=principal)
    return reading.read_study(session, study_id)


@router.post(
    "/{study_id}/resume",
    operation_id="resumeStudy",
    summary="Resume a study",
    responses=documented("not_found", "invalid_transition"),
    dependencies=[Depends(no_query)],
)
def resume_study(study_id: StudyId, session: WriteSession, principal: PrincipalDep) -> StudyRead:
    """Go on after a pause."""
    verbs.resume(session, study_id, actor=principal)
    return reading.read_study(session, study_id)


@router.post(
    "/{study_id}/stop",
    operation_id="stopStudy",
    summary="Stop a study",
    responses=documented("not_found", "invalid_transition"),
    dependencies=[Depends(no_query)],
)
def stop_study(study_id: StudyId, session: WriteSession, principal: PrincipalDep) -> StudyRead:
    """Let the running trials finish, then end with the answer so far."""
    verbs.stop(session, study_id, actor=principal)
    return reading.read_study(session, study_id)


@router.post(
    "/{study_id}/cancel",
    operation_id="cancelStudy",
    summary="Cancel a study",
    responses=documented("not_found", "invalid_transition"),
    dependencies=[Depends(no_query)],
)
def cancel_study(study_id: StudyId, session: WriteSession, principal: PrincipalDep) -> StudyRead:
    """Cancel a study and all its trials; running ones end within seconds."""
    verbs.cancel(session, study_id, actor=principal)
    return reading.read_study(session, study_id)


@router.post(
    "/{study_id}/retry-failed",
    operation_id="retryFailedTrials",
    summary="Try failed trials again",
    responses=documented(*_BODY_CODES, "not_found", "invalid_transition"),
    dependencies=[Depends(no_query)],
)
def retry_failed(study_id: StudyId, wanted: RetryFailed, session: WriteSession, principal: PrincipalDep) -> StudyRead:
    """Queue failed trials again, from their checkpoints; a study that has ended is taken up again."""
    verbs.retry_failed(session, study_id, actor=principal, kind=wanted.kind)
    return reading.read_study(session, study_id)


@router.post(
    "/{study_id}/extend",
    operation_id="extendStudy",
    summary="Extend a study",
    responses=documented(*_BODY_CODES, "not_found", "invalid_transition"),
    dependencies=[Depends(no_query)],
)
def extend_study(study_id: StudyId, wanted: ExtendStudy, session: WriteSession, principal: PrincipalDep) -> StudyRead:
    """Add trials or widen ranges, also after the end: nothing that was learned is lost, no trial runs twice."""
    verbs.extend(session, study_id, actor=principal, num_trials=wanted.num_trials, space=wanted.space)
    return reading.read_study(session, study_id)


@router.post(
    "/{study_id}/promote",
    operation_id="promoteStudy",
    summary="Make a job of the winner",
    status_code=status.HTTP_201_CREATED,
    responses=documented(*_BODY_CODES, "not_found", "conflict", "infeasible"),
    dependencies=[Depends(no_query)],
)
def promote_study(
    study_id: StudyId,
    wanted: PromoteStudy,
    session: WriteSession,
    service_parts: ServiceDep,
    principal: PrincipalDep,
    response: Response,
) -> JobRead:
    """Queue the best configuration, or one trial, as a job of its own, with changes such as more epochs."""
    spec = promotion.promoted_job(session, study_id, number=wanted.trial, changes=wanted.changes)
    allowed_packages = service_parts.settings.training.allowed_packages
    job, _ = jobs.submit(session, spec, actor=principal, allowed_packages=allowed_packages)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return JobRead.of(job)


@router.get(
    "/{study_id}/trials", operation_id="listTrials", summary="List a study's trials", responses=documented("not_found")
)
def list_trials(study_id: StudyId, session: ReadSession, query: Annotated[TrialsQuery, Query()]) -> TrialPage:
    """Return a page of trials, filtered and sorted."""
    return reading.read_trials(
        session, study_id, where=query.as_filter(), sort=query.sort, cursor=query.cursor, limit=query.limit
    )


@router.get(
    "/{study_id}/trials/export",
    operation_id="exportTrials",
    summary="Export a study's trials",
    response_class=Response,
    responses={**_EXPORT, **documented("not_found")},
)
def export_trials(study_id: StudyId, session: ReadSession, query: Annotated[ExportQuery, Query()]) -> Response:
    """Return all trials as one table, CSV or Parquet."""
    found = reading.all_trials(session, study_id, where=query.as_filter(), sort=query.sort)
    name = f'attachment; filename="study-{study_id}.{query.format}"'
    if query.format is ExportFormat.CSV:
        return Response(export.as_csv(found), media_type="text/csv", headers={"Content-Disposition": name})
    media_type = "application/vnd.apache.parquet"
    return Response(export.as_parquet(found), media_type=media_type, headers={"Content-Disposition": name})


@router.get(
    "/{study_id}/importances",
    operation_id="getImportances",
    summary="Read which fields matter",
    responses=documented("not_found"),
    dependencies=[Depends(no_query)],
)
def get_importances(study_id: StudyId, session: ReadSession) -> dict[str, float]:
    """Return each searched field's share of the objective's variation (PED-ANOVA); empty for too few trials."""
    return reading.read_plots(session, study_id).importances


@router.get(
    "/{study_id}/plots",
    operation_id="getPlots",
    summary="Read the data of the usual plots",
    responses=documented("not_found"),
    dependencies=[Depends(no_query)],
)
def get_plots(study_id: StudyId, session: ReadSession) -> PlotsRead:
    """Return what history, parallel coordinates, slices, the map of two fields and importances are drawn from."""
    return reading.read_plots(session, study_id)


preview_router = APIRouter(
    prefix="/v1",
    tags=["studies"],
    responses=documented("validation_failed", "invalid_request", "database_unavailable", "internal_error"),
)


@preview_router.post(
    "/studies:preview",
    operation_id="previewStudy",
    summary="See what a study would take",
    responses=documented(*_BODY_CODES, "infeasible"),
    dependencies=[Depends(no_query)],
)
def preview_study(
    spec: Annotated[StudySpec, Body(openapi_examples=STUDY_EXAMPLES)],
    session: ReadSession,
    service_parts: ServiceDep,
    principal: PrincipalDep,
) -> StudyPreview:
    """Count trials, gradient evaluations and probes, predict time from earlier runs; nothing is queued."""
    allowed_packages = service_parts.settings.training.allowed_packages
    found = cost.preview(session, spec, team=principal.team, allowed_packages=allowed_packages)
    return StudyPreview.of(spec, found)
