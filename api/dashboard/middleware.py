"""Errors as pages: what went wrong for a person at a browser, where programs get a problem document."""

import json
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from xsam.api.dashboard.templating import PART, render
from xsam.api.http.problems import PROBLEM_JSON

_OF_PROGRAMS = ("/v1/", "/openapi.json", "/healthz", "/readyz", "/metrics")
_KEPT = ("x-request-id", "retry-after", "allow")


class ErrorPages:
    """Turns the problem documents that a browser's navigation meets into pages; scripts get them as they are."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not _is_navigation(scope):
            await self._app(scope, receive, send)
            return
        held: Message | None = None
        body = bytearray()

        async def send_page(message: Message) -> None:
            nonlocal held
            if message["type"] == "http.response.start" and _is_problem(Headers(raw=message["headers"])):
                held = message
                return
            if held is None:
                await send(message)
                return
            body.extend(message.get("body", b""))
            if not message.get("more_body", False):
                answer = _page(Request(scope), json.loads(body), Headers(raw=held["headers"]))
                await answer(scope, receive, send)

        await self._app(scope, receive, send_page)


def _is_navigation(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    is_html = "text/html" in headers.get("accept", "") and PART not in headers
    return is_html and not scope["path"].startswith(_OF_PROGRAMS)


def _is_problem(headers: Headers) -> bool:
    return headers.get("content-type", "").partition(";")[0] == PROBLEM_JSON


def _view_of(request: Request) -> str | None:
    """Return the view that is asked for, or the one from which a form was sent; None where that is not known."""
    if request.method == "GET":
        return request.url.path + (f"?{request.url.query}" if request.url.query else "")
    sender = urlsplit(request.headers.get("referer", ""))
    if not sender.path or sender.netloc != request.headers.get("host"):
        return None
    return sender.path + (f"?{sender.query}" if sender.query else "")


def _page(request: Request, problem: dict[str, object], sent: Headers) -> Response:
    answer: Response
    if problem["code"] == "unauthenticated":
        wanted = _view_of(request)
        next_path = "" if wanted is None else f"?next={quote(wanted, safe='/')}"
        answer = RedirectResponse(f"/sign-in{next_path}", status_code=303, headers={"Cache-Control": "no-store"})
    else:
        is_away = problem["code"] == "database_unavailable"
        template = "database_down.html" if is_away else "error.html"
        status = int(str(problem["status"]))
        answer = render(request, template, {"problem": problem, "strips": []}, status=status)
    headers = MutableHeaders(raw=answer.raw_headers)
    for name in _KEPT:
        if name in sent:
            headers[name] = sent[name]
    return answer
