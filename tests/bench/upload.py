"""Upload of a folder of code: seconds, and the bytes that go over the wire, the first time and again."""

import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.bench.figures import median, table
from tests.support.served import served
from xsam.api.client import Client

MIB = 2**20
_SIZE = 20 * MIB
_NUM_FILES = 40


class Wire:
    """Counts what clients send through it to a server, on a port of its own."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.sent_bytes = 0

    @property
    def url(self) -> str:
        """Where to connect."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @contextmanager
    def open(self) -> Iterator[None]:
        """Pass bytes on while the block lasts."""
        threading.Thread(target=self._accept, daemon=True).start()
        yield
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                threading.Thread(target=self._pass_on, args=(client, server, True), daemon=True).start()
                threading.Thread(target=self._pass_on, args=(server, client, False), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, is_sent: bool) -> None:
        with suppress(OSError):
            while received := source.recv(MIB):
                self.sent_bytes += len(received) * is_sent
                target.sendall(received)
        target.close()


def measure(repeats: int) -> str:
    """Return the table: 20 MiB that no compressor makes smaller, each time others, sent and then submitted again."""
    first, again = [], []
    with tempfile.TemporaryDirectory() as folder, served(Path(folder) / "data", "--no-dispatcher") as service:
        wire = Wire(int(service.url.rsplit(":", 1)[1]))
        with wire.open(), Client(wire.url) as client:
            for number in range(repeats):
                code = Path(folder) / f"code-{number}"
                code.mkdir()
                for part in range(_NUM_FILES):
                    (code / f"part_{part}.bin").write_bytes(secrets.token_bytes(_SIZE // _NUM_FILES))
                first.append(_submit(client, code, wire))
                again.append(_submit(client, code, wire))
    rows = []
    for name, measured in (("first submit", first), ("the same code again", again)):
        seconds, sent = (median([one[which] for one in measured]) for which in (0, 1))
        rate = f"{sent / seconds / 1e6:.1f}" if sent > MIB else "-"
        rows.append([name, f"{seconds:.2f}", f"{sent:,.0f}", rate])
    return table(["20 MiB of code, packed and submitted", "s", "bytes sent, headers and job too", "MB/s"], rows)


def _submit(client: Client, code: Path, wire: Wire) -> tuple[float, int]:
    began_at, sent_before = time.perf_counter(), wire.sent_bytes
    sent, _ = client.bundles.resolve({"code": str(code), "task": {"target": "mine:Mine"}}, Path())
    client.submit(sent)
    return time.perf_counter() - began_at, wire.sent_bytes - sent_before


def main() -> None:
    """Print the figures."""
    print(measure(repeats=5))


if __name__ == "__main__":
    main()
