"""What surrounds every request: an id, one line in the log, a limit on its body, an answer when all else fails."""

import asyncio
import json
import logging
import re
import secrets
import time
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from xsam.api.http.counters import ApiCounters
from xsam.api.http.error_handlers import problem_response, unexpected_problem
from xsam.api.http.problems import make_problem
from xsam.services import logs

logger = logging.getLogger(__name__)
access_logger = logging.getLogger("xsam.api.http.access")

BODY_WITHIN_S = 30.0
"""For the whole of a body, which has at most a megabyte."""
LARGE_BODY_WITHIN_S = 600.0
"""For one on a path that takes larger ones."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HEADER = "X-Request-ID"


class RequestLog:
    """Gives each request an id (or keeps the caller's), logs and counts it, and answers uncaught errors.

    Args:
        app: what follows.
        counters: of this process.
    """

    def __init__(self, app: ASGIApp, counters: ApiCounters) -> None:
        self._app = app
        self._counters = counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        started_s = time.perf_counter()
        status: int | None = None

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
                route = getattr(scope.get("route"), "path", None)
                self._counters.count_request(scope["method"], route, status, time.perf_counter() - started_s)
                headers = MutableHeaders(scope=message)
                headers[_HEADER] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        with logs.of_request(request_id):
            try:
                await self._app(scope, receive, send_with_id)
            except Exception:
                logger.exception("request failed")
                if status is not None:  # too late for another answer: the broken connection tells the caller
                    raise
                await problem_response(unexpected_problem(), request_id)(scope, receive, send_with_id)
            finally:
                _log(scope, request_id, status, time.perf_counter() - started_s)


class BodyLimit:
    """Answers 413 to a body over the limit, announced or not, and 408 to one that never comes, before a route does."""

    def __init__(self, app: ASGIApp, max_bytes: int, larger: Mapping[str, int] | None = None) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._larger = larger or {}

    def _limit(self, scope: Scope) -> tuple[int, float]:
        """Return how large a body may be, and how long it may take, by the path's beginning."""
        for prefix, max_bytes in self._larger.items():
            if scope["path"].startswith(prefix):
                return max(max_bytes, self._max_bytes), LARGE_BODY_WITHIN_S
        return self._max_bytes, BODY_WITHIN_S

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        announced = headers.get("content-length", "")
        if not announced and "transfer-encoding" not in headers:
            await self._app(scope, receive, send)
            return
        max_bytes, within_s = self._limit(scope)
        if announced.isdecimal() and int(announced) > max_bytes:
            await self._refuse(scope, receive, send, max_bytes)
            return
        try:
            async with asyncio.timeout(within_s):
                body = await self._read(receive, max_bytes)
        except TimeoutError:
            problem = make_problem("request_timeout", f"The body did not arrive within {within_s:g} s.")
            await problem_response(problem, scope["state"]["request_id"])(scope, receive, send)
            return
        if body is None:
            await self._refuse(scope, receive, send, max_bytes)
            return
        is_given = False

        async def receive_body() -> Message:
            nonlocal is_given
            if is_given:
                return await receive()
            is_given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, receive_body, send)

    async def _read(self, receive: Receive, max_bytes: int) -> bytes | None:
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > max_bytes:
                return None
            if not message.get("more_body", False):
                return bytes(body)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, max_bytes: int) -> None:
        problem = make_problem("body_too_large", f"The body is larger than the {max_bytes} bytes allowed.")
        await problem_response(problem, scope["state"]["request_id"])(scope, receive, send)


def _request_id(scope: Scope) -> str:
    given = Headers(scope=scope).get(_HEADER, "")
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)


def _log(scope: Scope, request_id: str, status: int | None, duration_s: float) -> None:
    line = {
        "method": scope["method"],
        "path": scope["path"],
        "status": status,
        "duration_ms": round(duration_s * 1000, 2),
        "client": (scope.get("client") or ("",))[0],
        "user": scope["state"].get("user"),
        "request_id": request_id,
    }
    access_logger.info("%s", json.dumps(line), extra={"fields": line})
