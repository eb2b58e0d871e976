"""What Prometheus reads."""

from typing import Any

from fastapi import Response
from fastapi.responses import PlainTextResponse
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from xsam.api.http.dependencies import ServiceDep
from xsam.api.http.exposition import CONTENT_TYPE, exposition
from xsam.api.http.router import Router
from xsam.services.db.session import AWAY
from xsam.services.reports import gauges

router = Router("", "health")

_TEXT: dict[int | str, dict[str, Any]] = {200: {"description": "Prometheus's text format."}}


@router.route("GET", "/metrics", "Read what monitoring needs", answers=_TEXT, response_class=PlainTextResponse)
def read_metrics(service: ServiceDep) -> Response:
    """Return the service's state out of rows and what this process counted, in Prometheus's text format."""
    try:
        with service.database.read() as session:
            found = gauges.read(session)
    except (*AWAY, PoolTimeoutError):  # what this process counted is told all the same, and that the rest is missing
        found = None
    return PlainTextResponse(exposition(service.counters, found), media_type=CONTENT_TYPE)
