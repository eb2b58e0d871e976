"""The HTTP server: binds early, so that a taken port is a clear error, and ends its streams before it stops."""

import asyncio
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from xsam.api.http.dependencies import Service
from xsam.services.process import freeze_imports

_BACKLOG = 2048
HEAD_WITHIN_S = 10.0
"""For a request's first line and headers."""
TAKEN_WITHIN_S = 30.0
"""Whoever takes less than `_LEAST_TAKEN_BYTES` of an answer in this time is cut off."""
_LEAST_TAKEN_BYTES = 16_384
_CLOSE_WITHIN_S = 5


class AddressError(Exception):
    """The server can't listen where it was told to."""


def bind(host: str, port: int) -> socket.socket:
    """Return a socket bound to the address; port 0 takes a free one.

    Raises:
        AddressError: the address is taken or not ours.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, _, _, address = found[0]
        # The protocol must be named: asyncio turns Nagle's algorithm off only for sockets that say they are TCP, and
        # with it on, an answer in two writes waits 40 ms for the client's delayed acknowledgement.
        listener = socket.socket(family, kind, socket.IPPROTO_TCP)
    except OSError as e:
        raise _not_listening(host, port, e) from e
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as e:
        listener.close()
        raise _not_listening(host, port, e) from e
    return listener


def _not_listening(host: str, port: int, error: OSError) -> AddressError:
    return AddressError(f"can't listen on {host} port {port}: {error.strerror}; choose others with --host, --port")


def url_of(listener: socket.socket) -> str:
    """Return the URL under which a bound socket is reached from this machine."""
    host, port = listener.getsockname()[:2]
    reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{reachable}:{port}"


class _Impatient(HttpToolsProtocol):
    """Closes a connection whose request line and headers do not arrive in time, or whose answer is not taken.

    uvicorn waits for ever, and a stream whose reader stands still would hold its place for as long.
    """

    _waiting: asyncio.TimerHandle | None = None
    _held_up: asyncio.TimerHandle | None = None
    _untaken = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._stop_holding_up()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._waiting is None and (self.cycle is None or self.cycle.response_complete):
            self._wait_for_head()
        super().data_received(data)

    def pause_writing(self) -> None:
        self._wait_until_taken()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._stop_holding_up()
        super().resume_writing()

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        super().on_headers_complete()

    def _wait_for_head(self) -> None:
        self._waiting = self.loop.call_later(HEAD_WITHIN_S, self._give_up)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _wait_until_taken(self) -> None:
        self._untaken = self.transport.get_write_buffer_size()
        self._held_up = self.loop.call_later(TAKEN_WITHIN_S, self._look_what_was_taken)

    def _look_what_was_taken(self) -> None:
        if self._untaken - self.transport.get_write_buffer_size() < _LEAST_TAKEN_BYTES:
            self.transport.abort()  # close() would wait until all has been taken
        else:
            self._wait_until_taken()

    def _stop_holding_up(self) -> None:
        if self._held_up is not None:
            self._held_up.cancel()
            self._held_up = None

    def _give_up(self) -> None:
        self._waiting = None
        self.transport.close()


class Server(uvicorn.Server):
    """Serves one app until SIGINT or SIGTERM.

    Args:
        app: made by `create_app`.
        on_ready: called once requests are answered.
    """

    def __init__(self, app: FastAPI, *, on_ready: Callable[[], None]) -> None:
        config = uvicorn.Config(
            app,
            http=_Impatient,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=_CLOSE_WITHIN_S,
            backlog=_BACKLOG,
            limit_concurrency=app.state.service.settings.api.max_connections,
        )
        super().__init__(config)
        self._service: Service = app.state.service
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to answer, and say so."""
        await super().startup(sockets)
        if self.started:
            freeze_imports()
            self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note the signal; open streams end by themselves, so that the server need not cut them."""
        self._service.closing.set()
        super().handle_exit(sig, frame)
