"""The lab: the paper's figures, made from the service's own jobs."""

from typing import Annotated, Any

from fastapi import Body, Query, Response, status

from xsam.api.http.access import visible_team
from xsam.api.http.dependencies import AllowedCodeDep, PrincipalDep, ReadSession, WriteSession
from xsam.api.http.queries import IdempotencyKey, LabRunId, LabRunsQuery
from xsam.api.http.router import Router
from xsam.services.errors import NotFoundError
from xsam.services.lab import picture, service, verbs
from xsam.services.lab.finding import Finding
from xsam.services.lab.models import LabRun
from xsam.services.lab.schemas import FiguresRead, LabPreview, LabRunPage, LabRunRead, LabRunRow
from xsam.services.lab.spec import LabSpec

_EXAMPLES = {
    "one": {"summary": "A figure with everything else by default", "value": {"figure": "3b"}},
    "small": {"summary": "Minutes, on the bundled digits", "value": {"figure": "3b", "scale": "digits"}},
    "job": {"summary": "The loss around a job's checkpoints", "value": {"figure": "1a", "job": "4yvyyvwh3t7x"}},
    "changed": {
        "summary": "Another job under it",
        "value": {"figure": "3c", "scale": "laptop", "base": {"dataset": {"label_noise": 0}, "batch_size": 32}},
    },
}
_TABLE: dict[int | str, dict[str, Any]] = {
    200: {"description": "What the picture is drawn from.", "content": {"text/csv": {"schema": {"type": "string"}}}}
}
_SVG: dict[int | str, dict[str, Any]] = {
    200: {"description": "The picture.", "content": {"image/svg+xml": {"schema": {"type": "string"}}}}
}

router = Router("/v1/lab", "lab")


@router.route("GET", "/figures", "List figures")
def list_figures() -> FiguresRead:
    """Return the figures that can be made, each with its claim."""
    return FiguresRead(items=service.figures())


@router.route(
    "POST",
    "/runs",
    "Make a figure",
    refuses=("conflict", "infeasible"),
    answers={200: {"description": "The run that an earlier call with this Idempotency-Key made.", "model": LabRunRead}},
    status_code=status.HTTP_201_CREATED,
)
def submit_lab_run(
    spec: Annotated[LabSpec, Body(openapi_examples=_EXAMPLES)],
    session: WriteSession,
    allowed: AllowedCodeDep,
    principal: PrincipalDep,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> LabRunRead:
    """Begin a run: its jobs and studies are queued one after the other, and in the end there is a verdict."""
    run, is_new = service.submit(session, spec, actor=principal, allowed=allowed, idempotency_key=idempotency_key)
    if not is_new:
        response.status_code = status.HTTP_200_OK
    response.headers["Location"] = f"/v1/lab/runs/{run.id}"
    return _fresh(session, run)


@router.route("POST", "/runs:preview", "See what a figure would take", refuses=("infeasible",))
def preview_lab_run(
    spec: Annotated[LabSpec, Body(openapi_examples=_EXAMPLES)],
    session: ReadSession,
    allowed: AllowedCodeDep,
    principal: PrincipalDep,
) -> LabPreview:
    """Count trials and gradient evaluations, predict time from earlier runs; nothing is queued."""
    return service.preview(session, spec, team=principal.team, allowed=allowed)


@router.route("GET", "/runs", "List runs of figures")
def list_lab_runs(session: ReadSession, principal: PrincipalDep, query: Annotated[LabRunsQuery, Query()]) -> LabRunPage:
    """Return a page of the team's runs (of all teams', for admins), newest first."""
    team = visible_team(principal, query.team)
    runs, later = service.list_runs(session, team=team, figure=query.figure, cursor=query.cursor, limit=query.limit)
    return LabRunPage(items=[LabRunRow.of(run) for run in runs], next_cursor=later)


@router.route("GET", "/runs/{run_id}", "Read a run")
def get_lab_run(run_id: LabRunId, session: ReadSession) -> LabRunRead:
    """Return a run with its stages and, once it has ended, its verdict, caption, picture and table."""
    return LabRunRead.of(service.get(session, run_id))


@router.route("GET", "/runs/{run_id}/table", "Read a run's data", answers=_TABLE, response_class=Response)
def get_lab_table(run_id: LabRunId, session: ReadSession) -> Response:
    """Return what the picture is drawn from as CSV; not found before the run has ended."""
    name = f'attachment; filename="lab-{run_id}.csv"'
    text = _finding(service.get(session, run_id)).as_csv()
    return Response(text, media_type="text/csv", headers={"Content-Disposition": name})


@router.route("GET", "/runs/{run_id}/picture", "Read a run's picture", answers=_SVG, response_class=Response)
def get_lab_picture(run_id: LabRunId, session: ReadSession) -> Response:
    """Return the picture as SVG; not found before the run has ended."""
    return Response(picture.draw(_finding(service.get(session, run_id)).panels), media_type="image/svg+xml")


@router.route("POST", "/runs/{run_id}/cancel", "Cancel a run", refuses=("invalid_transition",))
def cancel_lab_run(run_id: LabRunId, session: WriteSession, principal: PrincipalDep) -> LabRunRead:
    """Cancel a run with its jobs and studies."""
    return _fresh(session, verbs.cancel(session, run_id, actor=principal))


@router.route("POST", "/runs/{run_id}/resume", "Take a run up again", refuses=("invalid_transition", "infeasible"))
def resume_lab_run(run_id: LabRunId, session: WriteSession, principal: PrincipalDep) -> LabRunRead:
    """Try the failed jobs of a failed run once more, and go on."""
    return _fresh(session, verbs.resume(session, run_id, actor=principal))


def _fresh(session: WriteSession, run: LabRun) -> LabRunRead:
    session.flush()
    session.refresh(run)
    return LabRunRead.of(run)


def _finding(run: LabRun) -> Finding:
    if run.finding is None:
        raise NotFoundError(f"lab run {run.id} is {run.state} and has found nothing yet", field="run_id")
    return Finding.model_validate(run.finding)
