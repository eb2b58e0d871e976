"""Smaller answers for those who can unpack them: what is complete, never a stream, whose lines must not wait."""

import gzip

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_FROM_BYTES = 1024
_LEVEL = 5


class Compression:
    """Sends JSON and pages of 1 KiB and more with gzip where the caller accepts it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or "gzip" not in Headers(scope=scope).get("accept-encoding", ""):
            await self._app(scope, receive, send)
            return
        held: Message | None = None

        async def send_packed(message: Message) -> None:
            nonlocal held
            if message["type"] == "http.response.start" and _is_packable(Headers(raw=message["headers"])):
                held = message  # until its body shows whether it is worth it
                return
            if held is not None:
                start, held = held, None
                message = _packed(start, message)
                await send(start)
            await send(message)

        await self._app(scope, receive, send_packed)


def _is_packable(headers: Headers) -> bool:
    kind = headers.get("content-type", "").partition(";")[0]
    return kind in ("application/json", "text/html") or kind.endswith("+json")


def _packed(start: Message, message: Message) -> Message:
    headers = MutableHeaders(scope=start)
    headers.add_vary_header("Accept-Encoding")
    body = message.get("body", b"")
    if message.get("more_body", False) or len(body) < _FROM_BYTES:
        return message
    packed = gzip.compress(body, _LEVEL, mtime=0)
    headers["Content-Encoding"] = "gzip"
    headers["Content-Length"] = str(len(packed))
    return {**message, "body": packed}
