"""Retries and refusals, against small real servers that misbehave as told."""

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from xsam.api.client import Client
from xsam.api.client.errors import ApiError, UnexpectedAnswerError, UnreachableError
from xsam.api.client.http import parse_events

_HEALTH = b'{"status":"alive","version":"9.9.9"}'
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(_HEALTH), _HEALTH)
_HTML = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>"
_GATEWAY = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 4\r\nConnection: close\r\n\r\noops"
_HANG_UP = b""


class Scripted:
    """Answers one connection after the other with given bytes and keeps what was asked."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = answers
        self.requests: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        for answer in self._answers:
            connection, _ = self._listener.accept()
            with connection:
                self.requests.append(connection.recv(65_536))
                connection.sendall(answer)

    def close(self) -> None:
        self._thread.join(60)
        self._listener.close()
        assert not self._thread.is_alive(), "fewer requests came than the script has answers"


@pytest.fixture
def scripted() -> Iterator[Callable[..., Scripted]]:
    servers: list[Scripted] = []

    def start(*answers: bytes) -> Scripted:
        servers.append(Scripted(*answers))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def test_send__tries_again_when_the_connection_breaks(scripted: Callable[..., Scripted]) -> None:
    server = scripted(_HANG_UP, _OK)
    with Client(server.url) as client:
        assert client.health().version == "9.9.9"


def test_send__gives_up_after_its_tries(scripted: Callable[..., Scripted]) -> None:
    server = scripted(_HANG_UP, _HANG_UP)
    with Client(server.url, num_tries=2) as client, pytest.raises(UnreachableError, match=r"no answer from http://127"):
        client.health()


def test_submit__repeats_itself_with_the_same_key(scripted: Callable[..., Scripted]) -> None:
    server = scripted(_HANG_UP, _GATEWAY)
    with Client(server.url) as client, pytest.raises(ApiError):
        client.submit({})
    keys = [
        line
        for request in server.requests
        for line in request.splitlines()
        if line.lower().startswith(b"idempotency-key")
    ]
    assert len(keys) == 2
    assert keys[0] == keys[1]


def test_problem__of_something_else_than_the_service_still_says_what_came(scripted: Callable[..., Scripted]) -> None:
    with Client(scripted(_GATEWAY).url) as client, pytest.raises(ApiError, match="HTTP 502 Bad Gateway") as caught:
        client.health()
    assert (caught.value.code, caught.value.status) == ("unknown", 502)


def test_answer__of_another_service_is_named_as_such(scripted: Callable[..., Scripted]) -> None:
    with Client(scripted(_HTML).url) as client, pytest.raises(UnexpectedAnswerError, match="GET /healthz"):
        client.health()


def test_events__are_taken_up_after_the_last_one_when_the_stream_breaks(scripted: Callable[..., Scripted]) -> None:
    def event(number: int, kind: str) -> bytes:
        data = f'{{"id":{number},"at":"2026-03-01T00:00:00Z","kind":"{kind}","actor":"a","message":"m","data":{{}}}}'
        return f"event: {kind}\ndata: {data}\nid: {number}\n\n".encode()

    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    cut = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9999\r\n\r\n"
    server = scripted(
        cut + event(4, "started") + b"event: half",
        head + b": ping\n\n" + event(5, "succeeded"),
        head + b'event: end\ndata: {"state": "succeeded"}\n\n',
    )
    with Client(server.url) as client:
        assert [found.id for found in client.follow_events("j", after=3)] == [4, 5]
    asked = [line for request in server.requests for line in request.splitlines() if line.startswith(b"Last-Event-ID")]
    assert asked == [b"Last-Event-ID: 3", b"Last-Event-ID: 4", b"Last-Event-ID: 5"]


def test_parse_events__joins_lines_and_skips_comments() -> None:
    lines = [": ping", "", "data: a", "data:  b", "id: 7", "", "event: lonely", "", "event: x", "data", ""]
    first, second = parse_events(lines)
    assert (first.id, first.event, first.data) == ("7", "message", "a\n b")
    assert (second.id, second.event, second.data) == ("", "x", "")
