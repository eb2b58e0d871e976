"""Probes: is the process alive, and can the service do its work."""

from xsam.api.http.dependencies import ServiceDep
from xsam.api.http.health import VERSION, Health, NotReadyError, Readiness
from xsam.api.http.router import Router
from xsam.services.cluster import service as cluster
from xsam.services.db import migrate

router = Router("", "health", is_open=True)


@router.route("GET", "/healthz", "Is the process alive?")
async def get_health() -> Health:
    """Answer without looking at anything; restart the process when this fails."""
    return Health(version=VERSION)


@router.route("GET", "/readyz", "Can jobs be submitted and run?", refuses=("not_ready", "database_unavailable"))
def get_readiness(service: ServiceDep) -> Readiness:
    """Check that the database has this release's schema and that a dispatcher is alive."""
    if not migrate.is_current(service.database):
        raise NotReadyError("The database does not have this release's schema; `xsam serve` brings it up to date.")
    with service.database.read() as session:
        dispatchers = [row.id for row in cluster.live_dispatchers(session)]
    if not dispatchers:
        raise NotReadyError("No dispatcher is alive; jobs would stay queued. Start one with `python -m xsam.workers`.")
    return Readiness(dispatchers=dispatchers)
