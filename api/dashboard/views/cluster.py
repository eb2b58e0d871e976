"""The cluster: machines, what is used, who held which of them when; setting them apart and taking them back."""

from typing import Annotated

from fastapi import Query, Response
from pydantic import Field, ValidationError

from xsam.api.dashboard.copying import of_cluster
from xsam.api.dashboard.pages import PageDep, Pages, ViewQuery
from xsam.api.dashboard.visitors import Form, FormDep
from xsam.api.http.access import visible_team
from xsam.api.http.dependencies import ReadSession, WriteSession
from xsam.api.http.validation import field_errors
from xsam.api.routes import nodes
from xsam.services.cluster.cordons import EVERYWHERE
from xsam.services.cluster.schemas import CordonWrite
from xsam.services.errors import InvalidRequestError
from xsam.services.reports import cluster

RANGES = {"1h": 3600, "6h": 6 * 3600, "1d": 86_400, "7d": 7 * 86_400, "30d": 30 * 86_400}

pages = Pages()


class ClusterView(ViewQuery):
    """Which machines are looked at, and how far back."""

    node: Annotated[str, Field(max_length=200)] | None = None
    range: Annotated[str, Field(pattern=f"^({'|'.join(RANGES)})$")] = "1d"


@pages.get("/cluster")
def show_cluster(page: PageDep, session: ReadSession, view: Annotated[ClusterView, Query()]) -> Response:
    """Show the machines as last seen, and what runs where."""
    found = cluster.overview(session, visible_team=visible_team(page.principal, None))
    return page.render(
        "cluster.html",
        view=view,
        state=view.changed(),
        cluster=found,
        nodes=[node for node in found.nodes if view.node in (None, node.id)],
        ranges=RANGES,
        range_s=RANGES[view.range],
        everywhere=EVERYWHERE,
        copies=of_cluster(),
    )


@pages.post("/cluster/cordon")
def cordon(page: PageDep, session: WriteSession, form: FormDep) -> Response:
    """Let a machine, or all of them, take no new jobs; those that run may have to leave."""
    node, wanted = form.one("node"), _wanted(form)
    if node == EVERYWHERE:
        nodes.begin_maintenance(wanted, session, page.principal)
    else:
        nodes.cordon_node(node, wanted, session, page.principal)
    return page.go("/cluster")


@pages.post("/cluster/uncordon")
def uncordon(page: PageDep, session: WriteSession, form: FormDep) -> Response:
    """Let a machine, or all of them, take jobs again."""
    node = form.one("node")
    if node == EVERYWHERE:
        nodes.end_maintenance(session, page.principal)
    else:
        nodes.uncordon_node(node, session, page.principal)
    return page.go("/cluster")


def _wanted(form: Form) -> CordonWrite:
    within_s = form.seconds("drain_min")
    try:
        return CordonWrite(reason=form.one("reason") or None, drain_within_s=within_s)
    except ValidationError as e:
        first = field_errors(e.errors(), CordonWrite)[0]
        raise InvalidRequestError(f"{first.field} {first.message}", field=first.field) from e
