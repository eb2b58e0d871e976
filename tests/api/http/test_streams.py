"""Streams over a real connection: what arrives, in which order, and when they end."""

import threading
from collections.abc import Callable, Iterator
from queue import Queue

import httpx
import pytest
from fastapi import FastAPI

from tests.support.row_runner import RowRunner
from xsam.api.client import Client
from xsam.api.client.http import Message, parse_events

_SSE = {"Accept": "text/event-stream"}


@pytest.fixture
def following() -> Iterator[Callable[[Iterator[str]], "Queue[str | None]"]]:
    """Read an iterator in a thread; its items come through a queue, then None."""
    threads = []

    def follow(items: Iterator[str]) -> "Queue[str | None]":
        queue: Queue[str | None] = Queue()

        def read() -> None:
            for item in items:
                queue.put(item)
            queue.put(None)

        threads.append(threading.Thread(target=read))
        threads[-1].start()
        return queue

    yield follow
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def _stream(http: httpx.Client, job_id: str, **headers: str) -> list[Message]:
    with http.stream("GET", f"/v1/jobs/{job_id}/events", headers={**_SSE, **headers}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-cache"
        return list(parse_events(response.iter_lines()))


def test_events__stream_what_was_and_end_with_the_job(http: httpx.Client, client: Client, runner: RowRunner) -> None:
    job = client.submit({})
    runner.run(job.id)
    messages = _stream(http, job.id)
    assert [message.event for message in messages] == ["submitted", "started", "succeeded", "end"]
    assert messages[-1].data == '{"state": "succeeded"}'
    assert [message.id for message in messages[:-1]] == [str(event.id) for event in client.events(job.id)]


def test_events__go_on_after_the_last_one_that_arrived(http: httpx.Client, client: Client, runner: RowRunner) -> None:
    job = client.submit({})
    runner.run(job.id)
    first = client.events(job.id)[0].id
    messages = _stream(http, job.id, **{"Last-Event-ID": str(first)})
    assert [message.event for message in messages] == ["started", "succeeded", "end"]


def test_events__tell_a_browser_not_to_come_back(http: httpx.Client, client: Client, runner: RowRunner) -> None:
    job = client.submit({})
    runner.run(job.id)
    last = client.events(job.id)[-1].id
    response = http.get(f"/v1/jobs/{job.id}/events", headers={**_SSE, "Last-Event-ID": str(last)})
    assert (response.status_code, response.content) == (204, b"")
    assert list(client.follow_events(job.id, after=last)) == []


@pytest.mark.parametrize("given", ["x", "-1", "9223372036854775808"])
def test_events__refuse_an_id_that_is_none(http: httpx.Client, client: Client, given: str) -> None:
    response = http.get(f"/v1/jobs/{client.submit({}).id}/events", headers={"Last-Event-ID": given})
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "Last-Event-ID"


def test_events__arrive_while_they_happen(
    client: Client, runner: RowRunner, following: Callable[[Iterator[str]], "Queue[str | None]"]
) -> None:
    job = client.submit({})
    arrived = following(event.kind for event in client.follow_events(job.id))
    assert arrived.get(timeout=300) == "submitted"
    lease = runner.claim(job.id)
    assert arrived.get(timeout=300) == "started"
    runner.complete(lease)
    assert arrived.get(timeout=300) == "succeeded"
    assert arrived.get(timeout=300) is None


def test_logs__follow_across_attempts_until_the_job_ends(
    client: Client, runner: RowRunner, following: Callable[[Iterator[str]], "Queue[str | None]"]
) -> None:
    job = client.submit({"retry": {"user": 1}})
    arrived = following(line.split(" ", 1)[1] for line in client.follow_logs(job.id))
    lease = runner.claim(job.id)
    runner.write_log(lease, "one\ntwo")
    assert [arrived.get(timeout=300) for _ in range(2)] == ["[rank 0] one", "[rank 0] two"]
    runner.write_log(lease, "last words", rank=1)
    runner.fail(lease, is_retry=True)
    lease = runner.claim(job.id)
    runner.write_log(lease, "again")
    assert [arrived.get(timeout=300) for _ in range(2)] == ["[rank 1] last words", "[rank 0] again"]
    runner.complete(lease)
    assert arrived.get(timeout=300) is None


def test_logs__follow_of_one_attempt_ends_with_it(client: Client, runner: RowRunner) -> None:
    job = client.submit({"retry": {"user": 1}})
    lease = runner.claim(job.id)
    runner.write_log(lease, "first try")
    runner.fail(lease, is_retry=True)
    lines = list(client.follow_logs(job.id, attempt=1))
    assert [line.split("] ")[1] for line in lines] == ["first try"]


def test_logs__follow_starts_with_the_tail(client: Client, runner: RowRunner) -> None:
    job = client.submit({})
    lease = runner.claim(job.id)
    runner.write_log(lease, "one\ntwo\nthree")
    runner.complete(lease)
    assert [line.split("] ")[1] for line in client.follow_logs(job.id, tail=1)] == ["three"]
    assert list(client.follow_logs(job.id, tail=0)) == []


def test_streams__end_when_the_server_is_about_to_stop(
    app: FastAPI, client: Client, following: Callable[[Iterator[str]], "Queue[str | None]"]
) -> None:
    job = client.submit({})
    arrived = following(client.follow_logs(job.id))
    app.state.service.closing.set()
    assert arrived.get(timeout=300) is None
    assert client.health().status == "alive"


def test_streams__many_at_once_leave_room_for_other_requests(
    client: Client, runner: RowRunner, following: Callable[[Iterator[str]], "Queue[str | None]"]
) -> None:
    job = client.submit({})
    # More than the server has threads (40) or database connections (15): each stream holds none.
    arrived = [following(client.follow_logs(job.id)) for _ in range(60)]
    assert client.get(job.id).state == "queued"
    lease = runner.claim(job.id)
    runner.write_log(lease, "hello")
    runner.complete(lease)
    for queue in arrived:
        line = queue.get(timeout=300)
        assert line is not None
        assert line.endswith("hello")
        assert queue.get(timeout=300) is None
