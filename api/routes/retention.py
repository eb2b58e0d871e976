"""What is kept long enough: say what would go, and let it go now instead of within a minute."""

from xsam.api.http.dependencies import PrincipalDep, ReadSession, ServiceDep
from xsam.api.http.router import Router
from xsam.services.retention import collecting, due
from xsam.services.retention.schemas import CollectedRead, RetentionRead, forgotten
from xsam.services.teams.roles import require_cluster_admin

router = Router("/v1/retention", "nodes")

_PER_CALL = 200


@router.route("GET", "", "Read what would be forgotten")
def preview_retention(session: ReadSession, principal: PrincipalDep, service: ServiceDep) -> RetentionRead:
    """Say what of ended jobs is kept long enough, by team and kind; for admins of the service."""
    require_cluster_admin(principal)
    rules = collecting.rules(session, service.settings.artifacts)
    items = forgotten(collecting.preview(session, rules))
    return RetentionRead(items=items, num_unmeasured=due.count_unmeasured(session))


@router.route("POST", "/collect", "Forget what is kept long enough", refuses=("storage_error",))
def collect_retention(principal: PrincipalDep, service: ServiceDep) -> CollectedRead:
    """Forget some of it now; the leading dispatcher does so every minute by itself. For admins of the service."""
    require_cluster_admin(principal)
    gone = collecting.collect(service.database, service.store, service.settings.artifacts, limit=_PER_CALL)
    with service.database.read() as session:
        has_more = bool(due.count_unmeasured(session))
    has_more = has_more or sum(one.num for one in gone) >= _PER_CALL
    return CollectedRead(items=forgotten(gone), has_more=has_more)
