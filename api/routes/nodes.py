"""Setting nodes, or the whole service, apart: cordon, drain, uncordon, maintenance."""

from typing import Annotated

from fastapi import Path, status

from xsam.api.http.dependencies import PrincipalDep, WriteSession
from xsam.api.http.router import Router
from xsam.services.cluster import cordons
from xsam.services.cluster.cordons import EVERYWHERE
from xsam.services.cluster.schemas import CordonRead, CordonWrite
from xsam.services.teams import audit
from xsam.services.teams.roles import Principal, require_cluster_admin

router = Router("/v1", "nodes")

NodeName = Annotated[
    str,
    Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$", max_length=255, description="Host or Ray id, as the cluster shows."),
]


@router.route("PUT", "/nodes/{node}/cordon", "Cordon or drain a node", refuses=("not_found",))
def cordon_node(node: NodeName, wanted: CordonWrite, session: WriteSession, principal: PrincipalDep) -> CordonRead:
    """Let a node take no new jobs; with `drain_within_s`, jobs there then move. For admins of the service.

    A job that moves saves a checkpoint, keeps its place in the queue and loses no epoch.
    """
    return _put(session, principal, node, wanted)


@router.route(
    "DELETE",
    "/nodes/{node}/cordon",
    "Uncordon a node",
    refuses=("not_found",),
    status_code=status.HTTP_204_NO_CONTENT,
)
def uncordon_node(node: NodeName, session: WriteSession, principal: PrincipalDep) -> None:
    """Let a node take jobs again; for admins of the service."""
    _lift(session, principal, node)


@router.route("PUT", "/maintenance", "Begin maintenance")
def begin_maintenance(wanted: CordonWrite, session: WriteSession, principal: PrincipalDep) -> CordonRead:
    """Let nothing new start on any node; jobs can be submitted and wait. For admins of the service."""
    return _put(session, principal, EVERYWHERE, wanted)


@router.route(
    "DELETE", "/maintenance", "End maintenance", refuses=("not_found",), status_code=status.HTTP_204_NO_CONTENT
)
def end_maintenance(session: WriteSession, principal: PrincipalDep) -> None:
    """Let jobs start again; for admins of the service."""
    _lift(session, principal, EVERYWHERE)


def _put(session: WriteSession, principal: Principal, node: str, wanted: CordonWrite) -> CordonRead:
    require_cluster_admin(principal)
    within_s = wanted.drain_within_s
    row = cordons.put(session, node, reason=wanted.reason, by=principal.user, drain_within_s=within_s)
    audit.record(session, principal, "node_cordoned", node[:100], team=None, **wanted.model_dump(mode="json"))
    return CordonRead.model_validate(row)


def _lift(session: WriteSession, principal: Principal, node: str) -> None:
    require_cluster_admin(principal)
    cordons.lift(session, node)
    audit.record(session, principal, "node_uncordoned", node[:100], team=None)
