import json
import logging
import socket
import time

import httpx
import pytest

from xsam.api.client import Client
from xsam.api.http import middleware
from xsam.api.http.problems import Problem

PATIENCE_S = 30.0


def _access_lines(caplog: pytest.LogCaptureFixture, num: int) -> list[dict[str, object]]:
    """Return the lines so far, at least `num`: a line is written when its answer has been sent."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == "xsam.api.http.access"]
        if len(lines) >= num:
            return lines
        assert time.monotonic() < deadline, f"only {len(lines)} of {num} lines came"
        time.sleep(0.01)


def test_request_id__is_made_up_or_kept(http: httpx.Client) -> None:
    first, second = (http.get("/healthz").headers["x-request-id"] for _ in range(2))
    assert first != second
    assert http.get("/healthz", headers={"X-Request-ID": "trace-1.2"}).headers["x-request-id"] == "trace-1.2"


def test_request_id__that_could_forge_a_log_line_is_replaced(http: httpx.Client) -> None:
    given = "a b{}" + "x" * 100
    assert http.get("/healthz", headers={"X-Request-ID": given}).headers["x-request-id"] != given


def test_access_log__has_one_json_line_per_request(http: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="xsam.api.http.access"):
        http.get("/v1/jobs/none%0Ainjected", headers={"X-Request-ID": "r1"})
        http.get("/healthz", headers={"X-Request-ID": "r2"})
        first, second = _access_lines(caplog, 2)
    assert (first["status"], first["path"], first["request_id"]) == (422, "/v1/jobs/none\ninjected", "r1")
    assert "\n" not in caplog.records[0].getMessage()
    assert (second["method"], second["status"], second["client"]) == ("GET", 200, "127.0.0.1")
    assert second["duration_ms"] > 0  # type: ignore[operator]


def test_body_limit__counts_a_body_that_does_not_announce_its_size(http: httpx.Client) -> None:
    chunks = (b"x" * 100_000 for _ in range(11))  # sent chunked, without Content-Length
    response = http.post("/v1/jobs", content=chunks, headers={"Content-Type": "application/json"})
    assert Problem.model_validate_json(response.content).code == "body_too_large"


def test_body_limit__lets_a_chunked_body_below_it_through(http: httpx.Client) -> None:
    chunks = iter([b'{"epochs"', b": 3}"])
    response = http.post("/v1/jobs", content=chunks, headers={"Content-Type": "application/json"})
    assert response.status_code == 201
    assert response.json()["spec"]["epochs"] == 3


def test_body_limit__refuses_at_the_announcement(url: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        head = (
            "POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9999999999\r\n\r\n"
        )
        connection.sendall(head.encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 413")


def test_caller_that_hangs_up__leaves_the_server_well(url: str, client: Client) -> None:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{")
    assert client.health().status == "alive"
    assert list(client.list()) == []


def _connect(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=60)


def test_body__that_never_comes_is_not_waited_for(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "BODY_WITHIN_S", 0.2)
    with _connect(url) as connection:
        connection.sendall(b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n{")
        answer = connection.recv(10_000)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"request_timeout" in answer


def test_answers__are_for_their_caller_alone_and_of_the_kind_they_say(http: httpx.Client) -> None:
    for path, status in (("/v1/jobs", 200), ("/v1/jobs/none", 404), ("/healthz", 200), ("/nothing", 404)):
        answer = http.get(path)
        assert answer.status_code == status
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"


def test_slash__too_much_is_no_redirect_to_whatever_host_is_named(http: httpx.Client) -> None:
    answer = http.get("/v1/jobs/", headers={"Host": "localhost.evil.example"})
    assert "location" not in answer.headers
    assert http.get("/v1/jobs/").status_code == 404


def test_json__is_packed_where_that_is_worth_it(http: httpx.Client, client: Client) -> None:
    for _ in range(20):
        client.submit({})
    packed = http.get("/v1/jobs", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["vary"] == "Accept-Encoding"
    plain = http.get("/v1/jobs", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert packed.json() == plain.json()
    assert int(packed.headers["content-length"]) * 5 < int(plain.headers["content-length"])
    assert "content-encoding" not in http.get("/healthz", headers={"Accept-Encoding": "gzip"}).headers


def test_stream__is_never_packed(http: httpx.Client, client: Client) -> None:
    job = client.submit({})
    client.cancel(job.id)
    headers = {"Accept": "text/event-stream", "Accept-Encoding": "gzip"}
    assert "content-encoding" not in http.get(f"/v1/jobs/{job.id}/events", headers=headers).headers
    log = http.get(f"/v1/jobs/{job.id}/logs", params={"follow": True}, headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in log.headers
