"""A thousand streams at once: of one token few are served, of a service without tokens all, and nobody else notices."""

import asyncio
import time
from collections import Counter

import httpx
import pytest
from fastapi import FastAPI

from tests.api.token_service import Callers, make_callers, submit
from tests.support.row_runner import RowRunner
from tests.support.served import wait_until
from xsam.api.client import Client
from xsam.api.http import changes
from xsam.services.db.session import Database
from xsam.services.settings import ApiSettings, Settings

NUM_STREAMS = 1_000
PATIENCE_S = 120.0


class _Connection:
    """One request for a stream, and what has come back."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.status = 0

    async def ask(self, path: str, token: str | None) -> None:
        bearer = "" if token is None else f"Authorization: Bearer {token}\r\n"
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{bearer}Accept: text/event-stream\r\n\r\n"
        self._writer.write(head.encode())
        self.status = int((await self._reader.readline()).split()[1])

    async def read_until(self, wanted: bytes) -> None:
        await self._reader.readuntil(wanted)

    async def close(self) -> None:
        self._writer.close()


async def _storm(url: str, path: str, callers: Callers | None) -> tuple[list[_Connection], list[int]]:
    """Ask for all streams at once, and meanwhile as somebody else (or in another connection) for something else."""
    token = None if callers is None else callers.valid["viewer"]
    headers = None if callers is None else callers.headers("member")
    host, port = url.removeprefix("http://").split(":")
    opened = [_Connection(*await asyncio.open_connection(host, int(port))) for _ in range(NUM_STREAMS)]
    asked = asyncio.gather(*(one.ask(path, token) for one in opened))
    statuses = []
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as other:
        while not asked.done() or len(statuses) < 5:
            statuses.append((await other.get("/v1/whoami")).status_code)
    await asked
    return opened, statuses


class TestOfOneToken:
    """A service for a team."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        api = ApiSettings(auth="token", rate_limit_per_s=100_000, rate_limit_burst=100_000)
        return settings.model_copy(update={"api": api})

    @pytest.fixture
    def callers(self, database: Database) -> Callers:
        return make_callers(database)

    @pytest.mark.slow
    def test_thousand_streams__of_one_token_are_refused_but_for_a_few_and_harm_nobody(
        self, url: str, http: httpx.Client, callers: Callers, settings: Settings, runner: RowRunner
    ) -> None:
        job_id = submit(http, callers)

        async def scene() -> tuple[Counter[int], list[int]]:
            opened, statuses = await _storm(url, f"/v1/jobs/{job_id}/events", callers)
            await asyncio.to_thread(runner.claim, job_id)
            for one in opened:
                if one.status == 200:
                    await one.read_until(b"event: started")
                await one.close()
            return Counter(one.status for one in opened), statuses

        found, others = asyncio.run(asyncio.wait_for(scene(), PATIENCE_S))
        served = settings.api.max_streams_per_token
        assert found == {200: served, 429: NUM_STREAMS - served}
        assert set(others) == {200}


@pytest.mark.slow
def test_thousand_streams_without_tokens__are_served_by_one_look_and_harm_nobody(
    app: FastAPI, url: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "LOOK_S", 0.05)

    async def scene() -> tuple[Counter[int], list[int]]:
        opened, statuses = await _storm(url, "/v1/changes", None)
        for one in opened:
            await one.read_until(b"event: changes")
        assert app.state.service.streams.num_open == NUM_STREAMS
        looks = app.state.service.changes.num_looks
        began_at = time.monotonic()
        job = await asyncio.to_thread(client.submit, {})
        for one in opened:
            await one.read_until(job.id.encode())
        assert app.state.service.changes.num_looks - looks <= (time.monotonic() - began_at) / changes.LOOK_S + 1
        for one in opened:
            await one.close()
        return Counter(one.status for one in opened), statuses

    found, others = asyncio.run(asyncio.wait_for(scene(), PATIENCE_S))
    assert found == {200: NUM_STREAMS}
    assert set(others) == {200}
    wait_until(lambda: app.state.service.streams.num_open == 0)
