"""The queue, why jobs stand where they do, the cluster, who used how much: read from rows, so also with Ray down."""

from typing import Annotated

from fastapi import Query

from xsam.api.http.access import visible_team
from xsam.api.http.dependencies import PrincipalDep, ReadSession, ServiceDep
from xsam.api.http.health import VERSION
from xsam.api.http.queries import JobId, OccupancyQuery, QueueQuery, SamplesQuery, SpendingQuery, UsageQuery
from xsam.api.http.router import Router
from xsam.services.cluster.schemas import ClusterRead
from xsam.services.jobs import service as jobs
from xsam.services.jobs.schemas import AttemptRead, AttemptsRead
from xsam.services.reports import attention, cluster, occupancy, spending, status, usage, why
from xsam.services.reports.occupancy import OccupancyRead, SamplesRead
from xsam.services.reports.schemas import AttentionRead, QueueRead, StatusRead, WhyRead
from xsam.services.reports.spending import SpendingRead
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


@router.route("GET", "/usage/sums", "Read what usage was for")
def read_spending(
    session: ReadSession, principal: PrincipalDep, query: Annotated[SpendingQuery, Query()]
) -> SpendingRead:
    """Return GPU-hours and CPU-hours over a time by optimizer, model, study, job, user or team, most first."""
    since, until = query.ends()
    team = visible_team(principal, query.team)
    return spending.spending(session, by=query.by, since=since, until=until, team=team, limit=query.limit)


@router.route("GET", "/cluster/occupancy", "Read what ran where")
def read_occupancy(
    session: ReadSession, principal: PrincipalDep, query: Annotated[OccupancyQuery, Query()]
) -> OccupancyRead:
    """Return which job held which node from when to when; of other teams' jobs only team and size."""
    since, until = query.ends()
    seen = visible_team(principal, None)
    return occupancy.occupancy(session, since=since, until=until, node=query.node, visible_team=seen)


@router.route("GET", "/cluster/samples", "Read how full the cluster was")
def list_samples(session: ReadSession, query: Annotated[SamplesQuery, Query()]) -> SamplesRead:
    """Return nodes, what teams held, and the length of the queue: a sample a minute, of old times one an hour."""
    since, until = query.ends()
    return occupancy.list_samples(session, since=since, until=until, points=query.points)


@router.route("GET", "/attention", "Read what needs a look")
def read_attention(session: ReadSession, principal: PrincipalDep, service: ServiceDep) -> AttentionRead:
    """Return stalled jobs, paused studies and reached quotas of the caller's team, and whether its token ends soon."""
    return attention.attention(session, principal, max_silence_s=service.settings.dispatcher.max_silence_s)


@router.route("GET", "/status", "Read how the service is")
def read_status(session: ReadSession) -> StatusRead:
    """Return the release, who leads, whether Ray answers, and the database's schema, in one."""
    return status.read_status(session, version=VERSION)
