"""Probes: is the process alive, and can the service do its work."""

from fastapi import APIRouter, Depends

from xsam.api.http.dependencies import ServiceDep, no_query
from xsam.api.http.errors import NotReadyError
from xsam.api.http.problems import documented
from xsam.api.http.schemas import Health, Readiness
from xsam.api.version import VERSION
from xsam.services.cluster import service as cluster
from xsam.services.db import migrate

router = APIRouter(
    tags=["health"], dependencies=[Depends(no_query)], responses=documented("invalid_request", "internal_error")
)


@router.get("/healthz", operation_id="getHealth", summary="Is the process alive?")
async def get_health() -> Health:
    """Answer without looking at anything; restart the process when this fails."""
    return Health(version=VERSION)


@router.get(
    "/readyz",
    operation_id="getReadiness",
    summary="Can jobs be submitted and run?",
    responses=documented("not_ready", "database_unavailable"),
)
def get_readiness(service: ServiceDep) -> Readiness:
    """Check that the database has this release's schema and that a dispatcher is alive."""
    if not migrate.is_current(service.database):
        raise NotReadyError("The database does not have this release's schema; `xsam serve` brings it up to date.")
    with service.database.read() as session:
        dispatchers = [row.id for row in cluster.live_dispatchers(session)]
    if not dispatchers:
        raise NotReadyError("No dispatcher is alive; jobs would stay queued. Start one with `python -m xsam.workers`.")
    return Readiness(dispatchers=dispatchers)
