"""The queue, why jobs stand where they do, the cluster, who used how much: read from rows, so also with Ray down."""

from typing import Annotated

from fastapi import Query

from xsam.api.http.access import visible_team
from xsam.api.http.dependencies import PrincipalDep, ReadSession
from xsam.api.http.queries import JobId, QueueQuery, UsageQuery
from xsam.api.http.router import Router
from xsam.services.cluster.schemas import ClusterRead
from xsam.services.jobs import service as jobs
from xsam.services.jobs.schemas import AttemptRead, AttemptsRead
from xsam.services.reports import cluster, usage, why
from xsam.services.reports.schemas import QueueRead, WhyRead
from xsam.services.usage.schemas import UsageRead

router = Router("/v1", "scheduling")


@router.route("GET", "/jobs/{job_id}/why", "Read why a job stands where it does")
def explain_job(job_id: JobId, session: ReadSession, principal: PrincipalDep) -> WhyRead:
    """Say in one sentence and in fields why a job waits: what is missing, who holds it, its place, its start."""
    return why.explain(session, job_id, visible_team=visible_team(principal, None))


@router.route("GET", "/jobs/{job_id}/attempts", "Read a job's attempts")
def list_attempts(job_id: JobId, session: ReadSession) -> AttemptsRead:
    """Return every run of a job, how it ended, and the traceback of those that failed."""
    jobs.get(session, job_id)
    rows = jobs.list_attempts(session, job_id)
    return AttemptsRead(items=[AttemptRead.model_validate(row) for row in rows])


@router.route("GET", "/queue", "Read the queue")
def read_queue(session: ReadSession, principal: PrincipalDep, query: Annotated[QueueQuery, Query()]) -> QueueRead:
    """Return the queued jobs in the order in which they would start; of other teams' jobs only team and request."""
    seen = visible_team(principal, None)
    return why.queue(session, after=query.after, limit=query.limit, visible_team=seen)


@router.route("GET", "/cluster", "Read the cluster")
def read_cluster(session: ReadSession, principal: PrincipalDep) -> ClusterRead:
    """Return the machines as last seen, what is used, and what runs where; of other teams' jobs only team and size."""
    return cluster.overview(session, visible_team=visible_team(principal, None))


@router.route("GET", "/usage", "Read usage")
def read_usage(session: ReadSession, principal: PrincipalDep, query: Annotated[UsageQuery, Query()]) -> UsageRead:
    """Return GPU-hours and CPU-hours by day, team and user, and where teams stand in the fair share."""
    team = visible_team(principal, query.team)
    return usage.usage(session, since=query.since, until=query.until, team=team)
