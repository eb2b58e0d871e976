"""Jobs: submit, list, read, and what they measured, did and wrote; `job_verbs` has what changes them."""

from dataclasses import replace
from typing import Annotated, Any

from fastapi import Body, Query, Request, Response, status
from fastapi.responses import PlainTextResponse, StreamingResponse
from sqlalchemy.orm import Session

from xsam.api.examples import SUBMIT_EXAMPLES
from xsam.api.http import streams
from xsam.api.http.access import Admission, visible_team
from xsam.api.http.dependencies import AllowedCodeDep, PrincipalDep, ReadSession, ServiceDep, WriteSession
from xsam.api.http.queries import (
    AlphaMapQuery,
    AlphaQuery,
    EventsQuery,
    IdempotencyKey,
    JobFields,
    JobId,
    JobsQuery,
    JobsWanted,
    LastEventId,
    LinesQuery,
    LogsQuery,
    MetricsQuery,
)
from xsam.api.http.router import Router
from xsam.services.artifacts import log_lines
from xsam.services.artifacts.log_lines import LinesRead
from xsam.services.artifacts.store import log_prefix
from xsam.services.errors import NotFoundError
from xsam.services.jobs import events, listing
from xsam.services.jobs import service as jobs
from xsam.services.jobs.listing import JobFilter
from xsam.services.jobs.schemas import EventPage, EventRead, JobPage, JobRead
from xsam.services.jobs.states import JobState, is_terminal
from xsam.services.metrics import service as metrics
from xsam.services.metrics.schemas import AlphaMap, AlphasRead, MetricsRead
from xsam.services.reports import job_rows
from xsam.services.reports.job_rows import JobRowPage
from xsam.services.specs.job import JobSpec
from xsam.services.teams.roles import Principal

router = Router("/v1/jobs", "jobs")

_EVENT_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The events; with `Accept: text/event-stream` a stream of them that ends with the job. "
        "Each message has the event's `id`, its kind as `event` and the same document as `data`; "
        "the last message is `end`.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    },
    204: {"description": "To `Last-Event-ID`: the job has ended and all its events were sent; don't reconnect."},
}
_LOG_TEXT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Lines `TIME [rank N] TEXT`, ordered by time.",
        "content": {
            "text/plain": {
                "schema": {"type": "string"},
                "example": "2026-03-01T09:00:02.118402Z [rank 0] epoch 1/30: accuracy 0.641\n",
            }
        },
    }
}


@router.route(
    "POST",
    "",
    "Submit a job",
    refuses=("conflict", "infeasible"),
    answers={200: {"description": "The job that an earlier submit with this Idempotency-Key made.", "model": JobRead}},
    status_code=status.HTTP_201_CREATED,
)
def submit_job(
    spec: Annotated[JobSpec, Body(openapi_examples=SUBMIT_EXAMPLES)],
    session: WriteSession,
    allowed: AllowedCodeDep,
    principal: PrincipalDep,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> JobRead:
    """Queue a job. Every field of the specification has a default: `{}` trains XSAM on the bundled digits."""
    job, is_new = jobs.submit(
        session,
        spec,
        actor=principal,
        allowed=allowed,
        idempotency_key=idempotency_key,
    )
    if not is_new:
        response.status_code = status.HTTP_200_OK
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return JobRead.of(job)


@router.route("GET", "", "List jobs", refuses=("not_found",), response_model=JobPage | JobRowPage)
def list_jobs(session: ReadSession, principal: PrincipalDep, query: Annotated[JobsQuery, Query()]) -> Any:
    """Return a page of the team's jobs (of all teams', for admins), newest first unless asked otherwise.

    Follow `next_cursor` for the rest, `previous_cursor` back. Pages stay what they are when jobs are added meanwhile.
    """
    where = wanted_jobs(session, principal, query)
    if query.fields is JobFields.BRIEF:
        return job_rows.list_rows(
            session,
            where=where,
            sort=query.sort,
            cursor=query.cursor,
            limit=query.limit,
            visible_team=principal.visible_team,
        )
    page = listing.list_jobs(session, where=where, sort=query.sort, cursor=query.cursor, limit=query.limit)
    items = [JobRead.of(job) for job in page.jobs]
    return JobPage(items=items, next_cursor=page.next_cursor, previous_cursor=page.previous_cursor)


def wanted_jobs(session: Session, principal: Principal, query: JobsWanted) -> JobFilter:
    """Return the filter that a query means for a caller.

    Raises:
        ForbiddenError: another team than the caller's own is asked for.
        NotFoundError: no such study.
        InvalidRequestError: the query contradicts itself.
    """
    where = replace(query.as_filter(), team=visible_team(principal, query.team))
    return where if query.study is None else replace(where, among=job_rows.trials_of(session, query.study, principal))


@router.route("GET", "/{job_id}", "Read a job")
def get_job(job_id: JobId, session: ReadSession) -> JobRead:
    """Return a job: its state, progress, result and specification."""
    return JobRead.of(jobs.get(session, job_id))


@router.route("GET", "/{job_id}/metrics", "Read a job's epochs")
def list_metrics(job_id: JobId, session: ReadSession, query: Annotated[MetricsQuery, Query()]) -> MetricsRead:
    """Return what each epoch measured, in order."""
    jobs.get(session, job_id)
    return MetricsRead(items=list(metrics.list_epochs(session, job_id, after=query.after, points=query.points)))


@router.route("GET", "/{job_id}/alpha", "Read a job's alpha estimates")
def list_alpha_estimates(job_id: JobId, session: ReadSession, query: Annotated[AlphaQuery, Query()]) -> AlphasRead:
    """Return every search for alpha* with its probe curve, in order; empty for optimizers that don't search."""
    jobs.get(session, job_id)
    rows = metrics.list_alphas(session, job_id, after_step=query.after, points=query.points)
    return AlphasRead(items=list(rows))


@router.route("GET", "/{job_id}/alpha-map", "Read a job's probe curves as a map")
def get_alpha_map(job_id: JobId, session: ReadSession, query: Annotated[AlphaMapQuery, Query()]) -> AlphaMap:
    """Return all probe curves on one grid, and how often alpha* was at the edge of its own."""
    jobs.get(session, job_id)
    return metrics.alpha_map(session, job_id, columns=query.columns, rows=query.rows)


@router.route(
    "GET", "/{job_id}/events", "Read or stream a job's events", answers=_EVENT_STREAM, response_model=EventPage
)
def list_events(  # noqa: PLR0913, PLR0917 - what the framework hands over
    request: Request,
    job_id: JobId,
    session: ReadSession,
    service: ServiceDep,
    principal: PrincipalDep,
    query: Annotated[EventsQuery, Query()],
    last_event_id: LastEventId = None,
) -> Any:
    """Return what happened to a job, oldest first, or stream it as it happens."""
    after = query.after if last_event_id is None else last_event_id
    job = jobs.get(session, job_id)
    rows = events.list_events(session, job_id, after=after, limit=query.limit)
    if "text/event-stream" not in request.headers.get("accept", ""):
        return EventPage(items=[EventRead.of(row) for row in rows])
    if last_event_id is not None and not rows and is_terminal(JobState(job.state)):
        return Response(status_code=status.HTTP_204_NO_CONTENT)
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    sent = streams.event_stream(service, Admission(service.database, principal), job_id, after)
    return streams.Stream(service, principal, sent, media_type="text/event-stream", headers=headers)


@router.route(
    "GET",
    "/{job_id}/logs",
    "Read or follow a job's log",
    refuses=("storage_error",),
    answers=_LOG_TEXT,
    response_class=PlainTextResponse,
)
def read_logs(
    job_id: JobId,
    session: ReadSession,
    service: ServiceDep,
    principal: PrincipalDep,
    query: Annotated[LogsQuery, Query()],
) -> Response:
    """Return the lines that the job's ranks wrote; with `follow`, go on until the job ends."""
    attempt = jobs.get(session, job_id).attempt
    if query.attempt is not None and query.attempt > attempt:
        raise NotFoundError(
            f"job {job_id} has had {attempt} attempts; there is none numbered {query.attempt}", "attempt"
        )
    if query.follow:
        admission = Admission(service.database, principal)
        lines = streams.log_stream(service, admission, job_id, attempt=query.attempt, rank=query.rank, tail=query.tail)
        headers = {"X-Accel-Buffering": "no"}
        return streams.Stream(service, principal, lines, media_type="text/plain", headers=headers)
    folder = service.store.local(log_prefix(job_id, query.attempt or attempt))
    text = streams.log_text(folder, rank=query.rank, tail=query.tail)
    return StreamingResponse(text, media_type="text/plain")


@router.route("GET", "/{job_id}/log-lines", "Read a job's log by line numbers", refuses=("storage_error",))
def read_log_lines(
    job_id: JobId, session: ReadSession, service: ServiceDep, query: Annotated[LinesQuery, Query()]
) -> LinesRead:
    """Return numbered lines: from one on, before one, the last ones, or those with a text; and how many there are."""
    attempt = query.attempt or jobs.get(session, job_id).attempt
    folder = service.store.local(log_prefix(job_id, attempt))
    return log_lines.read_numbered(
        folder,
        attempt,
        rank=query.rank,
        from_line=query.from_line,
        before=query.before,
        find=query.find,
        limit=query.limit,
    )
