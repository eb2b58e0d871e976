"""What changes of jobs, studies and trials: asked for, or as a stream."""

from typing import Annotated, Any

from fastapi import Query, Request

from xsam.api.http import streams
from xsam.api.http.access import Admission
from xsam.api.http.dependencies import PrincipalDep, ReadSession, ServiceDep
from xsam.api.http.queries import ChangesQuery, LastChange
from xsam.api.http.router import Router
from xsam.services.reports import changes
from xsam.services.reports.changes import ChangesRead, Position

router = Router("/v1/changes", "changes")

_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "What has changed since `after`; with `Accept: text/event-stream` a stream of such documents. "
        "Its messages are named `changes`, or `reload` where too much was missed; `id` is the cursor.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


@router.route("GET", "", "Read or stream what changes", answers=_STREAM, response_model=ChangesRead)
def list_changes(
    request: Request,
    session: ReadSession,
    service: ServiceDep,
    principal: PrincipalDep,
    query: Annotated[ChangesQuery, Query()],
    last_event_id: LastChange = None,
) -> Any:
    """Return how the jobs, studies and trials that have changed stand now, or stream it as it happens.

    A cursor holds at every replica, for five minutes; after that the answer says `reload`.
    """
    cursor = last_event_id or query.after
    after = None if cursor is None else Position.parse(cursor)
    if "text/event-stream" not in request.headers.get("accept", ""):
        if after is None:
            return ChangesRead(items=[], cursor=str(changes.present(session)))
        return changes.since(session, after, visible_team=principal.visible_team)
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    sent = streams.change_stream(service, Admission(service.database, principal), principal, after)
    return streams.Stream(service, principal, sent, media_type="text/event-stream", headers=headers)
