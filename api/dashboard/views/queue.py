"""The queue: who waits for what, in the order in which jobs would start."""

from typing import Annotated

from fastapi import Query, Response
from pydantic import Field

from xsam.api.dashboard.copying import of_queue
from xsam.api.dashboard.pages import PageDep, Pages, ViewQuery
from xsam.api.http.access import visible_team
from xsam.api.http.dependencies import ReadSession
from xsam.services.cluster import service as cluster
from xsam.services.reports import why
from xsam.services.scheduling import last_decision

PER_PAGE = 50

pages = Pages()


class QueueView(ViewQuery):
    """Which part of the queue is looked at."""

    after: Annotated[int, Field(ge=0, le=last_decision.LINE_LENGTH)] = 0
    """Position of the last job of the page before."""


@pages.get("/queue")
def show_queue(page: PageDep, session: ReadSession, view: Annotated[QueueView, Query()]) -> Response:
    """Show a page of the queue."""
    line = why.queue(session, after=view.after, limit=PER_PAGE, visible_team=visible_team(page.principal, None))
    wanted = {node for one in line.promises for node in one.node_ids}
    hosts = cluster.hosts(session, wanted) if wanted else {}
    return page.render(
        "queue.html",
        view=view,
        state=view.changed(),
        line=line,
        per_page=PER_PAGE,
        hosts=hosts,
        copies=of_queue({**view.changed(), "limit": PER_PAGE}),
    )
