"""What routes ask for: the service's parts, a session that reads or writes, and who is calling."""

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
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
    streams: OpenStreams
    changes: Hub
    counters: ApiCounters
    openid: OpenIdProvider | None
    closing: threading.Event


# async, though it waits for nothing: a plain function would be sent through the thread pool and back.
async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(_service)]


async def _allowed_code(service: ServiceDep) -> AllowedCode:
    return service.settings.allowed_code


AllowedCodeDep = Annotated[AllowedCode, Depends(_allowed_code)]
"""Which code of users' own a specification may name."""


def _read_session(service: ServiceDep) -> Iterator[Session]:
    with service.database.read() as session:
        yield session


def _write_session(service: ServiceDep) -> Iterator[Session]:
    with service.database.unit_of_work() as session:
        yield session


# scope="function": the transaction ends before the answer leaves, so a caller that reads its answer reads its write.
ReadSession = Annotated[Session, Depends(_read_session, scope="function")]
WriteSession = Annotated[Session, Depends(_write_session, scope="function")]


_bearer = HTTPBearer(
    scheme_name="token",
    auto_error=False,
    description="A token of this service, made by `xsam token create`. A service that runs for one user on loopback "
    "(`XSAM_API__AUTH=none`) needs none.",
)


def admit(
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
    with service.database.read() as session:
        caller = getattr(request.state, "caller", None)  # of a request with a body, whose caller is known before
        if caller is None:
            caller = identify(service, session, credentials.credentials if credentials else None, request)
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
