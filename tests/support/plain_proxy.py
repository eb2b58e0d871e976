"""A proxy that knows nothing of what it passes on: each new connection goes to the next server that answers."""

import itertools
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

_CHUNK = 65_536


@contextmanager
def plain_proxy(ports: Sequence[int]) -> Iterator[str]:
    """Pass connections on to local ports in turn; yields the proxy's address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_accept, args=(listener, itertools.cycle(ports), len(ports)), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def _accept(listener: socket.socket, ports: Iterator[int], num_ports: int) -> None:
    with ExitStack() as stack:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            stack.callback(client.close)
            server = _connected(itertools.islice(ports, num_ports))
            if server is None:
                client.close()
                continue
            stack.callback(server.close)
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=_pass, args=(source, target), daemon=True).start()


def _connected(ports: Iterator[int]) -> socket.socket | None:
    for port in ports:
        with suppress(OSError):
            return socket.create_connection(("127.0.0.1", port))
    return None


def _pass(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(_CHUNK):
            target.sendall(data)
    for one in (source, target):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
