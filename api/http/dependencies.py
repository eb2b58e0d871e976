"""What routes ask for: the service's parts, a session that reads or writes, and who is calling."""

import functools
import re
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import anyio
import anyio.to_thread
from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.orm import Session

from xsam.api.http import access, browsers
from xsam.api.http.changes import Hub
from xsam.api.http.counters import ApiCounters
from xsam.api.http.openid import OpenIdProvider
from xsam.api.http.rate_limit import OpenStreams, RateLimitedError, RateLimiter
from xsam.services.db.session import Database
from xsam.services.errors import InvalidRequestError, UnauthenticatedError
from xsam.services.settings import AllowedCode, Settings
from xsam.services.stores.store import ArtifactStore
from xsam.services.teams.roles import Principal
from xsam.services.teams.tokens import Authenticated

_NOT_NAME = re.compile(r"[^A-Za-z0-9._@-]")


@dataclass(frozen=True, slots=True)
class Service:
    """What one app serves from; built once by `create_app`.

    Args:
        settings: what the operator set.
        database: open for the life of the app.
        local_user: who calls, where no token is needed.
        limiter: counts the requests of each token.
        refusals: counts the requests without a valid token, by address.
        guesses: counts codes that people type and that are none, by person, and programs that sign in, by address.
        streams: counts the open streams of each token.
        changes: the one look at the database for all open streams.
        counters: what this process counts for monitoring.
        openid: the sign-on provider; None where there is none.
        closing: set when the server is about to stop, so that streams end.
    """

    settings: Settings
    database: Database
    local_user: str
    limiter: RateLimiter
    refusals: RateLimiter
    guesses: RateLimiter
    streams: OpenStreams
    changes: Hub
    counters: ApiCounters
    openid: OpenIdProvider | None
    closing: threading.Event

    @property
    def store(self) -> ArtifactStore:
        """Where artifacts lie."""
        return self.settings.store_place.open()


# async, though it waits for nothing: a plain function would be sent through the thread pool and back.
async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(_service)]


async def _allowed_code(service: ServiceDep) -> AllowedCode:
    return service.settings.allowed_code


AllowedCodeDep = Annotated[AllowedCode, Depends(_allowed_code)]
"""Which code of users' own a specification may name."""


# async, so that a request hops to a thread for its function alone: opening a session waits for nothing, and a write is
# committed where the function runs (see `committing`). What is left to end here waits, so it is sent to a thread.
async def _read_session(service: ServiceDep) -> AsyncIterator[Session]:
    session = service.database.open(writes=False)
    try:
        yield session
    finally:
        await _end(session)


async def _write_session(service: ServiceDep) -> AsyncIterator[Session]:
    session = service.database.open(writes=True)
    try:
        yield session
        if session.in_transaction():
            await _in_own_thread(session.commit)
    finally:
        await _end(session)


async def _end(session: Session) -> None:
    if not session.in_transaction():
        session.close()
        return
    with anyio.CancelScope(shield=True):  # a caller who hangs up must not keep a connection from the others
        await _in_own_thread(session.close)


async def _in_own_thread(end: Callable[[], None]) -> None:
    # Beside the pool of threads: all of those may be waiting for the connection that this gives back.
    await anyio.to_thread.run_sync(end, limiter=anyio.CapacityLimiter(1))


def committing(function: Callable[..., Any], hints: Mapping[str, Any]) -> Callable[..., Any]:
    """Return a route's function as one that commits before it returns, in the same thread, if it has a writing session.

    It is async, so FastAPI checks the answer where it is, too: all that is left is one hop to a thread and back.

    Args:
        function: plain, not async.
        hints: its annotations.
    """
    name = next((name for name, hint in hints.items() if hint == WriteSession), None)
    if name is None:
        return function

    def run(named: dict[str, Any]) -> Any:
        answer = function(**named)
        named[name].commit()
        return answer

    @functools.wraps(function)
    async def call(**named: Any) -> Any:
        return await run_in_threadpool(run, named)

    return call


# scope="function": the transaction ends before the answer leaves, so a caller that reads its answer reads its write.
ReadSession = Annotated[Session, Depends(_read_session, scope="function")]
WriteSession = Annotated[Session, Depends(_write_session, scope="function")]


_bearer = HTTPBearer(
    scheme_name="token",
    auto_error=False,
    description="A token of this service, made by `xsam token create`. A service that runs for one user on loopback "
    "(`XSAM_API__AUTH=none`) needs none.",
)


async def admit(
    request: Request, service: ServiceDep, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Principal:
    """Return who is calling, once it is clear that they may make this request.

    Every route below `/v1` depends on it, before it opens a transaction of its own.

    Raises:
        UnauthenticatedError: no valid token.
        RateLimitedError: the token is used too often.
        ForbiddenError: the caller may only read, or a foreign web page is calling.
        NotFoundError: the path names a thing of another team.
    """
    if not service.settings.api.needs_token:
        access.check_is_local(request.url.hostname, request.headers.get("origin"))
        return access.local_principal(service.local_user)
    return await run_in_threadpool(_admitted, request, service, credentials.credentials if credentials else None)


def _admitted(request: Request, service: Service, token: str | None) -> Principal:
    with service.database.read() as session:
        caller = getattr(request.state, "caller", None)  # of a request with a body, whose caller is known before
        if caller is None:
            caller = identify(service, session, token, request)
        principal = caller.principal
        request.state.user = principal.user
        access.check_request(session, principal, request.method, request.url.path, request.path_params)
    if caller.needs_touch:
        access.note_use(service.database, principal)
    return principal


def identify(service: Service, session: Session, token: str | None, request: Request) -> Authenticated:
    """Return who a request's token, or its browser's session, speaks for, and count the request.

    Raises:
        UnauthenticatedError: no valid token, and no open session.
        ForbiddenError: another site's page would change something through a browser that is signed in here.
        RateLimitedError: the token is used too often, or too many requests without a valid one come from the address.
    """
    secret = browsers.session_secret(request) if token is None else None
    if secret is not None and request.method not in access.SAFE_METHODS:
        browsers.check_same_origin(request.headers.get("host", ""), request.headers)
    try:
        caller = access.authenticate(session, token, secret)
    except UnauthenticatedError as e:
        wait_s = service.refusals.take(request.client.host if request.client else "")
        if wait_s > 0:
            raise RateLimitedError(wait_s, "too many requests without a valid token") from e
        raise
    wait_s = service.limiter.take(caller.principal.token_id or "")
    if wait_s > 0:
        raise RateLimitedError(wait_s)
    request.state.session_secret = secret
    return caller


PrincipalDep = Annotated[Principal, Depends(admit)]


async def no_query(request: Request) -> None:
    """Refuse query parameters on routes that take none, as the others refuse unknown ones.

    Raises:
        InvalidRequestError: there is one.
    """
    for name in request.query_params:
        raise InvalidRequestError(f"{name[:80]} is not a known query parameter; this route takes none", field=name[:80])


def local_user_name(name: str) -> str:
    """Return a system's user name as a caller's name, without characters that a label could not carry."""
    return _NOT_NAME.sub("-", name)[:63] or "local"
