"""Who is calling is asked before a body is read."""

import socket
import time
from contextlib import ExitStack

import httpx
import pytest
from fastapi import FastAPI

from tests.api.token_service import Callers, submit
from xsam.services.settings import ApiSettings, Settings
from xsam.services.teams import token_text


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={"api": ApiSettings(auth="token", rate_limit_per_s=0.1, rate_limit_burst=3, max_streams_per_token=2)}
    )


@pytest.mark.parametrize(
    "token", ["", f"Authorization: Bearer {token_text.new_token()}\r\n"], ids=["no token", "a wrong one"]
)
def test_body__of_somebody_without_a_token_is_not_read(url: str, token: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        head = f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\n{token}Content-Type: application/json\r\nContent-Length: 500"
        connection.sendall(f"{head}\r\n\r\n{{".encode())  # and never the rest
        answer = connection.recv(10_000)
    assert answer.startswith(b"HTTP/1.1 401")
    assert b'"code": "unauthenticated"' in answer
    assert b"www-authenticate: Bearer" in answer


def test_body__of_a_caller_with_a_token_counts_once(http: httpx.Client, callers: Callers) -> None:
    member = callers.headers("member")
    statuses = [http.post("/v1/jobs", json={}, headers=member).status_code for _ in range(4)]
    assert statuses == [201, 201, 201, 429]


def test_calls__without_a_valid_token_are_limited_by_address(http: httpx.Client, callers: Callers) -> None:
    wrong = {"Authorization": f"Bearer {token_text.new_token()}"}
    statuses = [http.get("/v1/whoami", headers=wrong).status_code, http.get("/v1/whoami").status_code]
    statuses += [http.post("/v1/jobs", json={}).status_code, http.post("/v1/jobs", json={}).status_code]
    assert statuses == [401, 401, 401, 429]
    refused = http.get("/v1/whoami", headers=wrong)
    assert refused.status_code == 429
    assert "without a valid token" in refused.json()["detail"]
    assert http.get("/v1/whoami", headers=callers.headers("member")).status_code == 200


def test_streams__of_one_token_are_few(
    http: httpx.Client, callers: Callers, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.state.service.limiter, "take", lambda caller: 0.0)
    job_id = submit(http, callers)
    viewer, accept = callers.headers("viewer"), {"Accept": "text/event-stream"}
    with ExitStack() as streams:
        for _ in range(2):
            asked = http.stream("GET", f"/v1/jobs/{job_id}/events", headers=viewer | accept)
            assert streams.enter_context(asked).status_code == 200
        for path, headers in (("events", accept), ("logs?follow=true", {})):
            refused = http.get(f"/v1/jobs/{job_id}/{path}", headers=viewer | headers)
            assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
            assert "2 streams of this token are open already" in refused.json()["detail"]
            assert refused.headers["retry-after"] == "5"
        assert http.get(f"/v1/jobs/{job_id}/events", headers=viewer).status_code == 200
        with http.stream("GET", f"/v1/jobs/{job_id}/events", headers=callers.headers("member") | accept) as other:
            assert other.status_code == 200
    deadline_s = time.monotonic() + 10
    while app.state.service.streams._open:  # those that were left are noticed at their next look
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
