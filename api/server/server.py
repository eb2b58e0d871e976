"""The HTTP server: binds early, so that a taken port is a clear error, and ends its streams before it stops."""

import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from xsam.api.http.dependencies import Service
from xsam.services.process import freeze_imports

_BACKLOG = 2048
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


class Server(uvicorn.Server):
    """Serves one app until SIGINT or SIGTERM.

    Args:
        app: made by `create_app`.
        on_ready: called once requests are answered.
    """

    def __init__(self, app: FastAPI, *, on_ready: Callable[[], None]) -> None:
        config = uvicorn.Config(
            app, log_config=None, access_log=False, timeout_graceful_shutdown=_CLOSE_WITHIN_S, backlog=_BACKLOG
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
