import socket
import time

import pytest
from fastapi import FastAPI

from tests.support.row_runner import RowRunner
from xsam.api.client import Client
from xsam.api.server import server
from xsam.api.server.server import AddressError, Server, bind, url_of


def test_bind__takes_a_free_port_and_says_its_url() -> None:
    with bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert url_of(listener) == f"http://127.0.0.1:{port}"


def test_bind__on_all_addresses_is_reached_on_loopback() -> None:
    with bind("0.0.0.0", 0) as listener:
        assert url_of(listener).startswith("http://127.0.0.1:")


def test_bind__a_taken_port_is_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AddressError, match=f"can't listen on 127.0.0.1 port {port}: .*in use.*--port"):
            bind("127.0.0.1", port)


def test_bind__an_address_of_another_machine_is_a_sentence() -> None:
    with pytest.raises(AddressError, match=r"can't listen on 192\.0\.2\.1 port 0"):
        bind("192.0.2.1", 0)


def test_bind__names_the_protocol_so_that_answers_are_not_held_back() -> None:
    with bind("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP


def test_connection__whose_head_never_comes_is_closed(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_WITHIN_S", 0.3)
    host, port = url.removeprefix("http://").split(":")
    for begun in (
        b"",
        b"GET /healthz HTTP/1.1\r\nHost: loc",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /h",
    ):
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(begun)
            received = b""
            while data := connection.recv(10_000):
                received += data
            assert received.count(b"HTTP/1.1 200") == begun.count(b"\r\n\r\n")


def test_stream__whose_reader_stands_still_is_cut_off_and_its_place_given_back(
    url: str, app: FastAPI, client: Client, runner: RowRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "TAKEN_WITHIN_S", 1.0)
    job = client.submit({})
    lease = runner.claim(job.id)
    runner.write_log(lease, "\n".join(["x" * 8_000] * 1_000))
    host, port = url.removeprefix("http://").split(":")
    with socket.socket() as slow, socket.socket() as steady:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        for connection in (slow, steady):
            connection.settimeout(10)
            connection.connect((host, int(port)))
            connection.sendall(f"GET /v1/jobs/{job.id}/logs?follow=true HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        received = 0
        while received < 8_000_000:
            data = steady.recv(1 << 20)
            assert data, "who takes what comes is not cut off"
            received += len(data)
        deadline_s = time.monotonic() + 10
        while app.state.service.streams._open[None] > 1:
            assert time.monotonic() < deadline_s, "a reader that takes nothing holds its place"
            time.sleep(0.05)
        runner.write_log(lease, "still here")
        assert b"still here" in steady.recv(10_000)


def test_connections__are_no_more_than_told(app: FastAPI) -> None:
    config = Server(app, on_ready=lambda: None).config
    assert config.limit_concurrency == app.state.service.settings.api.max_connections
