"""What browsers are told to refuse, and which posts they are believed to have meant. The wall behind the escaping."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from xsam.services.errors import ForbiddenError

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "worker-src 'self'",
        "font-src 'none'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types xsam",
    )
)

HTML_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
    # A page and a part of it have the same address.
    "Vary": "X-Part",
}
"""Of every answer that is HTML."""

_OWN_PATH = "/"


def check_same_origin(host: str, headers: Mapping[str, str]) -> None:
    """Refuse a post that another site makes through somebody's browser.

    Args:
        host: in the Host header, with its port.
        headers: of the request.

    Raises:
        ForbiddenError: it does not come from a page of this service.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    # Browsers that are too old for the first header send the second with every post.
    is_own = site == "same-origin" if site is not None else origin is not None and urlsplit(origin).netloc == host
    if not is_own:
        raise ForbiddenError("this form was not sent from a page of this service; open the page and send it again")


def own_path(wanted: str | None, default: str = "/home") -> str:
    """Return where to go next, if that is a path of this host; otherwise the default.

    Browsers read a backslash as a slash and drop control characters, so both could lead to another host.
    """
    if not wanted or not wanted.startswith(_OWN_PATH) or wanted.startswith(("//", "/\\")):
        return default
    return wanted if wanted.isprintable() and "\\" not in wanted else default
