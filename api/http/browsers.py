"""What browsers send by themselves: the session's cookie, and by what it counts for this service's own pages only."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from xsam.services.errors import ForbiddenError
from xsam.services.teams.sessions import LONGEST_S

COOKIE = "xsam"
SECURE_COOKIE = "__Host-xsam"
"""Over TLS: browsers take it from nobody but this host."""


def session_secret(request: Request) -> str | None:
    """Return the secret of the session that a browser's request belongs to; None where there is none."""
    return request.cookies.get(SECURE_COOKIE) or request.cookies.get(COOKIE)


def keep_session(request: Request, response: Response, secret: str) -> None:
    """Have the browser keep a session's secret, where no script can read it and no other site can send it."""
    is_secure = _is_secure(request)
    name = SECURE_COOKIE if is_secure else COOKIE
    response.set_cookie(name, secret, max_age=int(LONGEST_S), path="/", secure=is_secure, httponly=True, samesite="lax")


def forget_session(response: Response) -> None:
    """Have the browser forget the session."""
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="lax")
    response.delete_cookie(SECURE_COOKIE, path="/", secure=True, httponly=True, samesite="lax")


def check_same_origin(host: str, headers: Mapping[str, str]) -> None:
    """Refuse a change that another site makes through somebody's browser.

    Args:
        host: in the Host header, with its port.
        headers: of the request.

    Raises:
        ForbiddenError: it does not come from a page of this service.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    # Browsers that are too old for the first header send the second with everything but reads.
    is_own = site == "same-origin" if site is not None else origin is not None and urlsplit(origin).netloc == host
    if not is_own:
        raise ForbiddenError("this was not sent from a page of this service; open the page and send it again")


def _is_secure(request: Request) -> bool:
    # A proxy that ends TLS need not say so; the browser's Origin header does.
    return request.url.scheme == "https" or request.headers.get("origin", "").startswith("https://")
