"""The line, why jobs stand where they do, the cluster, and who used how much: read from rows, so also with Ray down."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from xsam.api.http.access import visible_team
from xsam.api.http.dependencies import JobId, PrincipalDep, ReadSession, no_query
from xsam.api.http.problems import documented
from xsam.api.http.scheduling_queries import QueueQuery, UsageQuery
from xsam.services.cluster.schemas import ClusterRead
from xsam.services.jobs import service as jobs
from xsam.services.jobs.schemas import AttemptRead, AttemptsRead
from xsam.services.reports import cluster, usage, why
from xsam.services.reports.schemas import QueueRead, WhyRead
from xsam.services.usage.schemas import UsageRead

router = APIRouter(
    prefix="/v1",
    tags=["scheduling"],
    responses=documented("validation_failed", "invalid_request", "database_unavailable", "internal_error"),
)


@router.get(
    "/jobs/{job_id}/why",
    operation_id="explainJob",
    summary="Read why a job stands where it does",
    responses=documented("not_found"),
    dependencies=[Depends(no_query)],
)
def explain_job(job_id: JobId, session: ReadSession, principal: PrincipalDep) -> WhyRead:
    """Say in one sentence and in fields why a job waits: what is missing, who holds it, its place, its start."""
    return why.explain(session, job_id, visible_team=visible_team(principal, None))


@router.get(
    "/jobs/{job_id}/attempts",
    operation_id="listAttempts",
    summary="Read a job's attempts",
    responses=documented("not_found"),
    dependencies=[Depends(no_query)],
)
def list_attempts(job_id: JobId, session: ReadSession) -> AttemptsRead:
    """Return every run of a job, how it ended, and the traceback of those that failed."""
    jobs.get(session, job_id)
    rows = jobs.list_attempts(session, job_id)
    return AttemptsRead(items=[AttemptRead.model_validate(row) for row in rows])


@router.get("/queue", operation_id="readQueue", summary="Read the line")
def read_queue(session: ReadSession, principal: PrincipalDep, query: Annotated[QueueQuery, Query()]) -> QueueRead:
    """Return the queued jobs in the order in which they would start; of other teams' jobs only team and request."""
    seen = visible_team(principal, None)
    return why.queue(session, after=query.after, limit=query.limit, visible_team=seen)


@router.get("/cluster", operation_id="readCluster", summary="Read the cluster", dependencies=[Depends(no_query)])
def read_cluster(session: ReadSession, principal: PrincipalDep) -> ClusterRead:
    """Return the machines as last seen, what is used, and what runs where; of other teams' jobs only team and size."""
    return cluster.overview(session, visible_team=visible_team(principal, None))


@router.get("/usage", operation_id="readUsage", summary="Read usage")
def read_usage(session: ReadSession, principal: PrincipalDep, query: Annotated[UsageQuery, Query()]) -> UsageRead:
    """Return GPU-hours and CPU-hours by day, team and user, and where teams stand in the fair share."""
    team = visible_team(principal, query.team)
    return usage.usage(session, since=query.since, until=query.until, team=team)
