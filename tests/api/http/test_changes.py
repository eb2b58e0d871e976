"""The stream of changes over a real connection, and the one look that all streams share."""

import threading
import time
from collections.abc import Callable, Iterator
from queue import Queue

import httpx
import pytest
from fastapi import FastAPI

from tests.support.row_runner import RowRunner
from xsam.api.client import Client
from xsam.api.client.http import parse_events
from xsam.api.http import changes
from xsam.api.http.changes import Batch, Hub, Listener
from xsam.services.db.session import Database
from xsam.services.reports.changes import ChangesRead, JobChange

Follow = Callable[[Client], "Queue[ChangesRead]"]


@pytest.fixture
def following(app: FastAPI) -> Iterator[Follow]:
    """Follow changes in a thread until the test is over; what comes goes through a queue, the first (empty) one not."""
    threads = []

    def follow(client: Client, after: str | None = None) -> "Queue[ChangesRead]":
        queue: Queue[ChangesRead] = Queue()

        def read() -> None:
            try:
                for answer in client.follow_changes(after=after):
                    queue.put(answer)
            except Exception:
                assert app.state.service.closing.is_set()

        threads.append(threading.Thread(target=read))
        threads[-1].start()
        return queue

    yield follow
    app.state.service.closing.set()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def _next_of(queue: "Queue[ChangesRead]", job_id: str) -> JobChange:
    """Return the next change of a job, leaving out those of others."""
    ends_s = time.monotonic() + 10
    while True:
        for item in queue.get(timeout=ends_s - time.monotonic()).items:
            if item.job_id == job_id:
                return item


def test_stream__says_what_changes_while_it_happens(client: Client, runner: RowRunner, following: Follow) -> None:
    arrived = following(client)
    assert arrived.get(timeout=300).items == []
    job = client.submit({"name": "mine", "epochs": 2})
    assert _next_of(arrived, job.id).state == "queued"
    lease = runner.claim(job.id)
    change = _next_of(arrived, job.id)
    assert (change.state, change.events) == ("running", ["started"])
    runner.report(lease, 1)
    change = _next_of(arrived, job.id)
    assert (change.epochs_done, change.events) == (1, [])
    runner.complete(lease)
    assert _next_of(arrived, job.id).state == "succeeded"


def test_stream__goes_on_from_a_cursor_of_another_answer(client: Client, http: httpx.Client, runner: RowRunner) -> None:
    cursor = client.changes().cursor
    job = client.submit({})
    runner.run(job.id)
    polled = client.changes(after=cursor)
    assert [(change.job_id, change.state) for change in polled.items] == [(job.id, "succeeded")]
    headers = {"Accept": "text/event-stream", "Last-Event-ID": cursor}
    with http.stream("GET", "/v1/changes", headers=headers) as response:
        message = next(parse_events(response.iter_lines()))
    assert message.event == "changes"
    assert ChangesRead.model_validate_json(message.data).items == polled.items


def test_stream__tells_who_comes_back_too_late_to_reload(http: httpx.Client) -> None:
    headers = {"Accept": "text/event-stream", "Last-Event-ID": "1.1000"}
    with http.stream("GET", "/v1/changes", headers=headers) as response:
        message = next(parse_events(response.iter_lines()))
    assert message.event == "reload"
    assert ChangesRead.model_validate_json(message.data).reload


@pytest.mark.parametrize("given", ["x", "-1", "1"])
def test_changes__refuse_a_cursor_that_is_none(http: httpx.Client, given: str) -> None:
    assert http.get("/v1/changes", params={"after": given}).status_code == 422


def test_hub__looks_as_often_for_many_as_for_one_and_not_for_nobody(
    app: FastAPI, client: Client, following: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "LOOK_S", 0.05)
    hub: Hub = app.state.service.changes
    time.sleep(0.2)
    assert hub.num_looks == 0
    arrived = [following(client) for _ in range(20)]
    for queue in arrived:
        queue.get(timeout=300)
    start, start_s = hub.num_looks, time.monotonic()
    job = client.submit({})
    for queue in arrived:
        assert _next_of(queue, job.id).state == "queued"
    looks, took_s = hub.num_looks - start, time.monotonic() - start_s
    assert 1 <= looks <= took_s / 0.05 + 1


def _change(job_id: str, team: str) -> JobChange:
    return JobChange.model_validate(
        {
            "job_id": job_id,
            "kind": "training",
            "team": team,
            "name": None,
            "state": "queued",
            "state_since": "2026-01-01T00:00:00Z",
            "wish": None,
            "attempt": 0,
            "epochs_done": 0,
            "num_epochs": 1,
        }
    )


def test_batch__shows_each_team_its_own_and_admins_all() -> None:
    batch = Batch("1.2", [_change("mine", "red"), _change("yours", "blue")])
    assert b"mine" in (batch.message("red") or b"")
    assert b"yours" not in (batch.message("red") or b"")
    assert batch.message("green") is None
    assert {b"mine" in (batch.message(None) or b""), b"yours" in (batch.message(None) or b"")} == {True}


async def _fill(num: int) -> Listener:
    listener = Listener()
    for number in range(num):
        listener.put(Batch(f"{number}.1", [_change(f"job{number}", "red")], frozenset({f"job{number}"})))
    return listener


def test_listener__that_is_too_slow_is_told_to_reload() -> None:
    import asyncio

    async def play() -> Batch | None:
        listener = await _fill(changes._MOST_UNSENT + 1)
        return await listener.take(0)

    batch = asyncio.run(play())
    assert batch is not None
    assert batch.is_reload
    assert "job0" in batch.touched
    assert b"reload" in (batch.message("red") or b"")


def test_hub__outlives_a_database_that_does_not_answer(
    app: FastAPI, client: Client, database: Database, following: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy.exc import OperationalError

    monkeypatch.setattr(changes, "LOOK_S", 0.05)
    monkeypatch.setattr(changes, "_TROUBLE_S", 0.05)
    arrived = following(client)
    arrived.get(timeout=300)
    hub: Hub = app.state.service.changes
    real, failed = hub._look, threading.Event()

    def fail() -> Batch | None:
        failed.set()
        raise OperationalError("SELECT", {}, Exception("away"))

    monkeypatch.setattr(hub, "_look", fail)
    assert failed.wait(60)
    job = client.submit({})
    monkeypatch.setattr(hub, "_look", real)
    assert _next_of(arrived, job.id).state == "queued"
