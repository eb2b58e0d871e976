"""Probes: is the process alive, and can the service do its work."""

from fastapi import APIRouter, Depends

from api.dependencies import ServiceDep, no_query
from api.errors import NotReadyError
from api.problems import documented
from api.schemas import Health, Readiness
from api.version import VERSION
from services.cluster import service as cluster
from services.db import migrate

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
        raise NotReadyError("No dispatcher is alive; jobs would stay queued. Start one with `python -m workers`.")
    return Readiness(dispatchers=dispatchers)
