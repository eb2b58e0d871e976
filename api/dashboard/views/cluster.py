"""The cluster: machines, what is used, and who held which of them when."""

from typing import Annotated

from fastapi import Query, Response
from pydantic import Field

from xsam.api.dashboard.pages import PageDep, Pages, ViewQuery
from xsam.api.http.access import visible_team
from xsam.api.http.dependencies import ReadSession
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
    nodes = [node for node in found.nodes if view.node in (None, node.id)]
    return page.render(
        "cluster.html",
        view=view,
        state=view.changed(),
        cluster=found,
        nodes=nodes,
        ranges=RANGES,
        range_s=RANGES[view.range],
    )
