"""One try to deliver a message: signed, to an address that is allowed, and nowhere else.

The headers are those of Standard Webhooks: `webhook-id`, `webhook-timestamp`, and `webhook-signature`, which is
`v1,` and the base64 of HMAC-SHA256 over `ID.TIMESTAMP.BODY`.
"""

import base64
import hashlib
import hmac
import http.client
import ipaddress
import json
import secrets
import socket
import ssl
import time
from collections.abc import Sequence
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from xsam.services.errors import InvalidRequestError
from xsam.services.notifications.outbox import Message
from xsam.services.settings import NotificationSettings

PREFIX = "whsec_"
_SECRET_BYTES = 32
_ANSWER_BYTES = 1024
_OK = range(200, 300)


class NotDeliveredError(Exception):
    """A message did not arrive; the text says why."""


def new_secret() -> str:
    """Return a secret for a new webhook."""
    return PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Return what `webhook-signature` says of a message."""
    key = base64.b64decode(secret.removeprefix(PREFIX))
    signed = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return "v1," + base64.b64encode(signed.digest()).decode()


def check_url(url: str, settings: NotificationSettings) -> None:
    """Refuse an address that the operator does not allow. What its name stands for is looked at with each try.

    Raises:
        InvalidRequestError: says what is allowed.
    """
    parts = urlsplit(url)
    schemes = ("https", "http") if settings.allow_private_addresses else ("https",)
    if parts.scheme not in schemes or not parts.hostname or parts.username is not None:
        raise InvalidRequestError(
            f"url is {url[:200]!r}; allowed are {' and '.join(schemes)} without user or password", field="url"
        )
    try:
        _ = parts.port
    except ValueError as e:
        raise InvalidRequestError(f"url is {url[:200]!r}: {e}", field="url") from e
    if not any(fnmatchcase(parts.hostname.lower(), pattern.lower()) for pattern in settings.allowed_hosts):
        allowed = (
            ", ".join(settings.allowed_hosts) or "none: the operator has not set XSAM_NOTIFICATIONS__ALLOWED_HOSTS"
        )
        raise InvalidRequestError(f"url names the host {parts.hostname!r}; allowed are {allowed}", field="url")


def send(message: Message, settings: NotificationSettings) -> None:
    """Send a message once.

    Raises:
        NotDeliveredError: it did not arrive, or may not be sent there any more.
    """
    try:
        check_url(message.url, settings)
    except InvalidRequestError as e:
        raise NotDeliveredError(str(e)) from e
    body = json.dumps(message.payload).encode()
    timestamp = int(time.time())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "xsam",
        "webhook-id": message.id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(message.secret, message.id, timestamp, body),
    }
    try:
        status = _post(message.url, body, headers, settings)
    except (OSError, http.client.HTTPException) as e:
        raise NotDeliveredError(f"{type(e).__name__}: {e}") from e
    if status not in _OK:
        raise NotDeliveredError(f"it answered {status}")


def _post(url: str, body: bytes, headers: dict[str, str], settings: NotificationSettings) -> int:
    """Post to the very address that was looked at, and follow no redirect: either could lead into the house."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    address = _address(host, port, is_private_allowed=settings.allow_private_addresses)
    connection = http.client.HTTPConnection(host, port, timeout=settings.timeout_s)
    stream = socket.create_connection((address, port), timeout=settings.timeout_s)
    try:
        if parts.scheme == "https":
            stream = ssl.create_default_context().wrap_socket(stream, server_hostname=host)
        connection.sock = stream
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", target, body, {"Host": parts.netloc, **headers})
        answer = connection.getresponse()
        answer.read(_ANSWER_BYTES)
        return answer.status
    finally:
        stream.close()


def _address(host: str, port: int, *, is_private_allowed: bool) -> str:
    """Return an address of a host; all of them must be public, unless private ones are allowed."""
    found: Sequence[str] = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    for address in found:
        if not is_private_allowed and not _is_public(address):
            raise NotDeliveredError(
                f"{host} is {address}, no public address; XSAM_NOTIFICATIONS__ALLOW_PRIVATE_ADDRESSES allows it"
            )
    return found[0]


def _is_public(address: str) -> bool:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    inner = getattr(parsed, "ipv4_mapped", None)
    return (inner or parsed).is_global and not (inner or parsed).is_multicast
