import asyncio
from typing import Annotated

import httpx
from fastapi import FastAPI, Query
from fastapi.routing import APIRoute

from xsam.api.http import error_handlers
from xsam.api.http.dependencies import admit
from xsam.api.http.queries import EventsQuery, JobId
from xsam.api.http.router import Router
from xsam.services.jobs.schemas import JobUpdate


def _route(router: Router) -> APIRoute:
    found = router.routes.routes[0]
    assert isinstance(found, APIRoute)
    return found


def _codes(router: Router) -> set[str]:
    texts = "".join(answer["description"] for answer in _route(router).responses.values())
    return set(texts.split("`")[1::2])


def test_route__that_takes_no_query_refuses_one_by_itself() -> None:
    app, router = FastAPI(), Router("", "health", is_open=True)

    @router.route("GET", "/ping", "Ping")
    async def ping() -> str:
        return "pong"

    app.include_router(router.routes)
    error_handlers.install(app)

    async def ask(path: str) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as http:
            return await http.get(path)

    assert asyncio.run(ask("/ping")).json() == "pong"
    refused = asyncio.run(ask("/ping?x=1"))
    assert refused.status_code == 422
    assert refused.json()["code"] == "invalid_request"
    assert refused.json()["detail"] == "x is not a known query parameter; this route takes none"


def test_route__documents_what_follows_from_its_path_and_parameters() -> None:
    open_one, one, changing = Router("", "health", is_open=True), Router("/v1", "jobs"), Router("/v1", "jobs")

    @open_one.route("GET", "/ping", "Ping", refuses=("not_ready",))
    def ping() -> None: ...

    @one.route("GET", "/jobs/{job_id}", "Read")
    def read_one_job(job_id: JobId) -> None: ...

    @changing.route("PATCH", "/things", "Change")
    def change_it(change: JobUpdate) -> None: ...

    admitted = {"unauthenticated", "forbidden", "rate_limited", "database_unavailable"}
    assert _codes(open_one) == {"invalid_request", "internal_error", "not_ready"}
    assert _codes(one) == {"invalid_request", "internal_error", "validation_failed", "not_found"} | admitted
    body = {"malformed_body", "request_timeout", "body_too_large", "unsupported_media_type", "validation_failed"}
    assert _codes(changing) == {"invalid_request", "internal_error"} | body | admitted
    assert _route(one).operation_id == "readOneJob"


def test_route__that_takes_a_query_leaves_unknown_names_to_its_model() -> None:
    router = Router("/v1", "jobs")

    @router.route("GET", "/events", "Read")
    def read(query: Annotated[EventsQuery, Query()]) -> None: ...

    assert [one.dependency for one in _route(router).dependencies] == [admit]
