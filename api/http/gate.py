"""Who is calling, before a body is read: nobody without a token makes the service take in what they send."""

from collections.abc import Collection

from fastapi.concurrency import run_in_threadpool
from fastapi.security.utils import get_authorization_scheme_param
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from xsam.api.http.dependencies import Service, identify
from xsam.api.http.error_handlers import on_database_error, on_service_error
from xsam.services.errors import ServiceError
from xsam.services.teams.tokens import Authenticated


class Gate:
    """Refuses requests that announce a body and carry no valid token; `admit` finds the caller of the others ready.

    Args:
        app: what follows.
        service: whose tokens count.
        open_paths: take a body from everybody, small as it is.
    """

    def __init__(self, app: ASGIApp, service: Service, open_paths: Collection[str]) -> None:
        self._app = app
        self._service = service
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and self._is_guarded(scope):
            request = Request(scope)
            try:
                scope["state"]["caller"] = await run_in_threadpool(self._identify, request)
            except ServiceError as e:
                await on_service_error(request, e)(scope, receive, send)
                return
            except (OperationalError, PoolTimeoutError) as e:
                await on_database_error(request, e)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_guarded(self, scope: Scope) -> bool:
        is_open = not self._service.settings.api.needs_token or scope["path"] in self._open_paths
        return not is_open and _has_body(Headers(scope=scope))

    def _identify(self, request: Request) -> Authenticated:
        scheme, token = get_authorization_scheme_param(request.headers.get("authorization"))
        with self._service.database.read() as session:
            return identify(self._service, session, token if scheme.lower() == "bearer" else None, request)


def _has_body(headers: Headers) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
