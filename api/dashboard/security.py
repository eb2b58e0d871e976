"""What browsers are told to refuse: the wall behind the escaping; and where a link may lead."""

from collections.abc import Mapping

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


def own_path(wanted: str | None, default: str = "/home") -> str:
    """Return where to go next, if that is a path of this host; otherwise the default.

    Browsers read a backslash as a slash and drop control characters, so both could lead to another host.
    """
    if not wanted or not wanted.startswith(_OWN_PATH) or wanted.startswith(("//", "/\\")):
        return default
    return wanted if wanted.isprintable() and "\\" not in wanted else default
