"""A real HTTP server for webhooks: notes what it is sent, and answers what it is told to."""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Receiver:
    """What has come.

    Args:
        answers: statuses, one after the other; the last one stays.
    """

    def __init__(self, answers: Sequence[int]) -> None:
        self._answers = list(answers)
        self.received: list[tuple[dict[str, str], bytes]] = []
        self.url = ""

    @property
    def payloads(self) -> list[Any]:
        return [json.loads(body) for _, body in self.received]

    def answer(self) -> int:
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


@contextmanager
def receiving(*answers: int) -> Iterator[Receiver]:
    """Listen on loopback."""
    receiver = Receiver(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.received.append(({name.lower(): value for name, value in self.headers.items()}, body))
            status = receiver.answer()
            self.send_response(status)
            if status == 302:
                self.send_header("Location", receiver.url)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
