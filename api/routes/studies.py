"""Studies: submit, preview, read, tell them things, and read their trials."""

from dataclasses import replace
from typing import Annotated, Any

from fastapi import Body, Query, Response, status

from xsam.api.examples import STUDY_EXAMPLES
from xsam.api.http.access import visible_team
from xsam.api.http.dependencies import AllowedCodeDep, PrincipalDep, ReadSession, WriteSession
from xsam.api.http.queries import ExportFormat, ExportQuery, IdempotencyKey, StudiesQuery, StudyId, TrialsQuery
from xsam.api.http.router import Router
from xsam.services.jobs.schemas import JobRead
from xsam.services.studies import export, reading, service, verbs
from xsam.services.studies.schemas import (
    ExtendStudy,
    PromoteStudy,
    RetryFailed,
    StudyPage,
    StudyPreview,
    StudyRead,
    TrialPage,
    UpdateStudy,
)
from xsam.services.studies.spec import StudySpec

_EXPORT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "One row for each trial, a `params.` column for each searched field.",
        "content": {
            "text/csv": {"schema": {"type": "string"}},
            "application/vnd.apache.parquet": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}

router = Router("/v1", "studies")


@router.route(
    "POST",
    "/studies",
    "Submit a study",
    refuses=("conflict", "infeasible"),
    answers={
        200: {"description": "The study that an earlier submit with this Idempotency-Key made.", "model": StudyRead}
    },
    status_code=status.HTTP_201_CREATED,
)
def submit_study(
    spec: Annotated[StudySpec, Body(openapi_examples=STUDY_EXAMPLES)],
    session: WriteSession,
    allowed: AllowedCodeDep,
    principal: PrincipalDep,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> StudyRead:
    """Queue a hyperparameter search. `{"preset": "rho"}` is a whole one."""
    job, is_new = service.submit(
        session,
        spec,
        actor=principal,
        allowed=allowed,
        idempotency_key=idempotency_key,
    )
    if not is_new:
        response.status_code = status.HTTP_200_OK
    response.headers["Location"] = f"/v1/studies/{job.id}"
    return reading.read_study(session, job.id)


@router.route("GET", "/studies", "List studies")
def list_studies(session: ReadSession, principal: PrincipalDep, query: Annotated[StudiesQuery, Query()]) -> StudyPage:
    """Return a page of the team's studies (of all teams', for admins), newest first."""
    where = replace(query.as_filter(), team=visible_team(principal, query.team))
    return reading.list_studies(session, where=where, cursor=query.cursor, limit=query.limit)


@router.route("GET", "/studies/{study_id}", "Read a study")
def get_study(study_id: StudyId, session: ReadSession) -> StudyRead:
    """Return a study: what is best, how arms compare, how far it is, what it has cost and what is to come."""
    return reading.read_study(session, study_id)


@router.route("PATCH", "/studies/{study_id}", "Change a study", refuses=("invalid_transition",))
def update_study(study_id: StudyId, change: UpdateStudy, session: WriteSession, principal: PrincipalDep) -> StudyRead:
    """Let more or fewer trials run at once; running ones are never interrupted for it."""
    verbs.set_concurrency(session, study_id, change.concurrency, actor=principal)
    return reading.read_study(session, study_id)


@router.route("POST", "/studies/{study_id}/pause", "Pause a study", refuses=("invalid_transition",))
def pause_study(study_id: StudyId, session: WriteSession, principal: PrincipalDep) -> StudyRead:
    """Start no new trials; the running ones finish."""
    verbs.pause(session, study_id, actor=principal)
    return reading.read_study(session, study_id)


@router.route("POST", "/studies/{study_id}/resume", "Resume a study", refuses=("invalid_transition",))
def resume_study(study_id: StudyId, session: WriteSession, principal: PrincipalDep) -> StudyRead:
    """Go on after a pause."""
    verbs.resume(session, study_id, actor=principal)
    return reading.read_study(session, study_id)


@router.route("POST", "/studies/{study_id}/stop", "Stop a study", refuses=("invalid_transition",))
def stop_study(study_id: StudyId, session: WriteSession, principal: PrincipalDep) -> StudyRead:
    """Let the running trials finish, then end with the answer so far."""
    verbs.stop(session, study_id, actor=principal)
    return reading.read_study(session, study_id)


@router.route("POST", "/studies/{study_id}/cancel", "Cancel a study", refuses=("invalid_transition",))
def cancel_study(study_id: StudyId, session: WriteSession, principal: PrincipalDep) -> StudyRead:
    """Cancel a study and all its trials; running ones end within seconds."""
    verbs.cancel(session, study_id, actor=principal)
    return reading.read_study(session, study_id)


@router.route(
    "POST",
    "/studies/{study_id}/retry-failed",
    "Try failed trials again",
    refuses=("invalid_transition", "infeasible"),
)
def retry_failed_trials(
    study_id: StudyId, wanted: RetryFailed, session: WriteSession, principal: PrincipalDep
) -> StudyRead:
    """Queue failed trials again, from their checkpoints; a study that has ended is taken up again."""
    verbs.retry_failed(session, study_id, actor=principal, kind=wanted.kind)
    return reading.read_study(session, study_id)


@router.route("POST", "/studies/{study_id}/extend", "Extend a study", refuses=("invalid_transition", "infeasible"))
def extend_study(study_id: StudyId, wanted: ExtendStudy, session: WriteSession, principal: PrincipalDep) -> StudyRead:
    """Add trials or widen ranges, also after the end: nothing that was learned is lost, no trial runs twice."""
    verbs.extend(session, study_id, actor=principal, num_trials=wanted.num_trials, space=wanted.space)
    return reading.read_study(session, study_id)


@router.route(
    "POST",
    "/studies/{study_id}/promote",
    "Make a job of the winner",
    refuses=("conflict", "infeasible"),
    status_code=status.HTTP_201_CREATED,
)
def promote_study(
    study_id: StudyId,
    wanted: PromoteStudy,
    session: WriteSession,
    allowed: AllowedCodeDep,
    principal: PrincipalDep,
    response: Response,
) -> JobRead:
    """Queue the best configuration, or one trial, as a job of its own, with changes such as more epochs."""
    job = verbs.promote(
        session,
        study_id,
        actor=principal,
        number=wanted.trial,
        changes=wanted.changes,
        allowed=allowed,
    )
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return JobRead.of(job)


@router.route("GET", "/studies/{study_id}/trials", "List a study's trials")
def list_trials(study_id: StudyId, session: ReadSession, query: Annotated[TrialsQuery, Query()]) -> TrialPage:
    """Return a page of trials, filtered and sorted."""
    return reading.read_trials(
        session, study_id, where=query.as_filter(), sort=query.sort, cursor=query.cursor, limit=query.limit
    )


@router.route(
    "GET", "/studies/{study_id}/trials/export", "Export a study's trials", answers=_EXPORT, response_class=Response
)
def export_trials(study_id: StudyId, session: ReadSession, query: Annotated[ExportQuery, Query()]) -> Response:
    """Return all trials as one table, CSV or Parquet."""
    found = reading.all_trials(session, study_id, where=query.as_filter(), sort=query.sort)
    name = f'attachment; filename="study-{study_id}.{query.format}"'
    if query.format is ExportFormat.CSV:
        return Response(export.as_csv(found), media_type="text/csv", headers={"Content-Disposition": name})
    media_type = "application/vnd.apache.parquet"
    return Response(export.as_parquet(found), media_type=media_type, headers={"Content-Disposition": name})


@router.route("POST", "/studies:preview", "See what a study would take", refuses=("infeasible",))
def preview_study(
    spec: Annotated[StudySpec, Body(openapi_examples=STUDY_EXAMPLES)],
    session: ReadSession,
    allowed: AllowedCodeDep,
    principal: PrincipalDep,
) -> StudyPreview:
    """Count trials, gradient evaluations and probes, predict time from earlier runs; nothing is queued."""
    return service.preview(session, spec, team=principal.team, allowed=allowed)
