"""Answers that go on: what changes, a job's events, its log lines.

Each look at the database or at files is one short call in a worker thread, so a thousand open streams hold no session
and no thread; and they look at the database only when the process's one look for changes says that there is something.
"""

import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path

from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.types import Receive, Scope, Send

from xsam.api.http.access import RECHECK_S, Admission
from xsam.api.http.changes import Listener, as_event
from xsam.api.http.dependencies import Service
from xsam.services.artifacts.logs import LogFollower, LogLine, read_lines
from xsam.services.artifacts.store import log_prefix
from xsam.services.jobs import events
from xsam.services.jobs import service as jobs
from xsam.services.jobs.schemas import EventRead
from xsam.services.jobs.states import JobState, is_terminal
from xsam.services.reports import changes
from xsam.services.reports.changes import ChangesRead, Position
from xsam.services.stores.store import ArtifactStore
from xsam.services.teams.roles import Principal

POLL_S = 0.25
FETCH_S = 2.0
KEEPALIVE_S = 15.0
_EVENTS_PER_LOOK = 500
_CHUNK_CHARS = 65_536


class Stream(StreamingResponse):
    """An answer that goes on; its place among the caller's streams is taken when it is made and given back at its end.

    Args:
        service: counts it.
        principal: whose it is.
        content: what it sends.
        media_type: of what it sends.
        headers: of the answer.

    Raises:
        RateLimitedError: the caller has too many open.
    """

    def __init__(
        self,
        service: Service,
        principal: Principal,
        content: AsyncIterator[bytes] | AsyncIterator[str],
        *,
        media_type: str,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(content, media_type=media_type, headers=headers)
        self._streams = service.streams
        self._caller = principal.token_id
        self._streams.take(self._caller)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._streams.give_back(self._caller)


async def change_stream(
    service: Service, admission: Admission, principal: Principal, after: Position | None
) -> AsyncIterator[bytes]:
    """Yield what changes of the jobs, studies and trials that the caller may see, as server-sent events.

    The first message says where the stream begins: what has changed after the caller's position, or nothing.
    """
    team = principal.visible_team
    async with service.changes.listen() as listener:
        if listener.is_over:
            return
        yield as_event(await run_in_threadpool(_changes_since, service, after, team))
        silence = _Silence()
        while not listener.is_over and await admission.holds():
            batch = await listener.take(RECHECK_S)
            message = None if batch is None else batch.message(team)
            if message is not None:
                silence.end()
                yield message
            elif silence.is_long():
                yield KEEPALIVE_COMMENT


def _changes_since(service: Service, after: Position | None, team: str | None) -> ChangesRead:
    with service.database.read() as session:
        if after is None:
            return ChangesRead(items=[], cursor=str(changes.present(session)))
        return changes.since(session, after, visible_team=team)


class _Silence:
    """How long a stream has sent nothing: connections that seem dead are closed by what lies between."""

    def __init__(self) -> None:
        self.end()

    def end(self) -> None:
        """Note that something is sent."""
        self._since_s = time.monotonic()

    def is_long(self) -> bool:
        """Return whether a sign of life is due, which ends the silence."""
        if time.monotonic() - self._since_s < KEEPALIVE_S:
            return False
        self.end()
        return True


async def event_stream(service: Service, admission: Admission, job_id: str, after: int) -> AsyncIterator[bytes]:
    """Yield a job's events as server-sent events, those that come included, until the job has ended.

    The last message is named `end` and carries the job's state; it tells a browser's EventSource to close.
    """
    async with service.changes.listen() as listener:
        silence = _Silence()
        while not service.closing.is_set() and await admission.holds():
            found, state = await run_in_threadpool(_look_for_events, service, job_id, after)
            for event in found:
                yield format_sse_event(data_str=event.model_dump_json(), event=event.kind, id=str(event.id))
                after = event.id
            if found:
                silence.end()
                continue
            if is_terminal(state):
                yield format_sse_event(data_str=f'{{"state": "{state}"}}', event="end")
                return
            while not await _has_news(listener, job_id, RECHECK_S):
                if listener.is_over or not await admission.holds():
                    return
                if silence.is_long():
                    yield KEEPALIVE_COMMENT


async def _has_news(listener: Listener, job_id: str, timeout_s: float) -> bool:
    """Wait for a job's events, and return whether some have come in time."""
    ends_s = time.monotonic() + timeout_s
    while (left_s := ends_s - time.monotonic()) > 0 and not listener.is_over:
        batch = await listener.take(left_s)
        if batch is not None and (batch.is_reload or job_id in batch.touched):
            return True
    return False


def _look_for_events(service: Service, job_id: str, after: int) -> tuple[Sequence[EventRead], JobState]:
    """Return the events after one, and the job's state.

    The state is read first: if it is terminal, the event that says so is among those read after it.
    """
    with service.database.read() as session:
        state = JobState(jobs.get(session, job_id).state)
        found = events.list_events(session, job_id, after=after, limit=_EVENTS_PER_LOOK)
        return [EventRead.of(event) for event in found], state


def log_text(folder: Path, *, rank: int | None, tail: int | None) -> Iterator[str]:
    """Yield an attempt's lines as text in chunks; `folder` is the one with its logs."""
    lines: Iterator[LogLine] = read_lines(folder, rank=rank)
    if tail is not None:
        lines = iter(deque(lines, maxlen=tail))
    chunk: list[str] = []
    num_chars = 0
    for line in lines:
        chunk.append(as_text(line))
        num_chars += len(chunk[-1])
        if num_chars >= _CHUNK_CHARS:
            yield "".join(chunk)
            chunk, num_chars = [], 0
    yield "".join(chunk)


class _LogPosition:
    """How far an attempt's log has been sent."""

    def __init__(self, store: ArtifactStore, job_id: str, attempt: int, rank: int | None) -> None:
        self.attempt = attempt
        self._store = store
        self._prefix = log_prefix(job_id, attempt)
        self._follower = LogFollower(store.local(self._prefix), rank=rank)
        self._is_elsewhere = store.path(self._prefix) is None
        self._fetch_at = 0.0

    def poll(self, *, is_last: bool) -> list[LogLine]:
        """Return the lines that came; a log that lies in a bucket is fetched every few seconds and at its end."""
        if self._is_elsewhere:
            now = time.monotonic()
            if now < self._fetch_at and not is_last:
                return []
            self._fetch_at = now + FETCH_S
            self._store.local(self._prefix)
        return self._follower.poll()


async def log_stream(
    service: Service, admission: Admission, job_id: str, *, attempt: int | None, rank: int | None, tail: int | None
) -> AsyncIterator[str]:
    """Yield log lines as they come, until the job (or the attempt asked for) has ended.

    Without `attempt`, the stream goes on with the next attempt when the job is retried.
    """
    position: _LogPosition | None = None
    async with service.changes.listen() as listener:
        has_news = True
        while not (service.closing.is_set() or listener.is_over) and await admission.holds():
            if has_news:
                current, is_over = await run_in_threadpool(_where_job_stands, service, job_id, attempt)
            if position is None or position.attempt != current:
                if position is not None:  # what the old attempt wrote last
                    yield _as_text(await run_in_threadpool(position.poll, is_last=True))
                position = await run_in_threadpool(_LogPosition, service.store, job_id, current, rank)
            lines = await run_in_threadpool(position.poll, is_last=is_over)
            if tail is not None:
                lines, tail = (lines[-tail:] if tail else []), None
            if lines:
                yield _as_text(lines)
            if is_over:
                return
            has_news = await _has_news(listener, job_id, POLL_S)


def as_text(line: LogLine) -> str:
    """Return a log line as the API shows it."""
    return f"{line.at} [rank {line.rank}] {line.text}\n"


def _as_text(lines: Sequence[LogLine]) -> str:
    return "".join(as_text(line) for line in lines)


def _where_job_stands(service: Service, job_id: str, wanted: int | None) -> tuple[int, bool]:
    with service.database.read() as session:
        job = jobs.get(session, job_id)
        is_over = is_terminal(JobState(job.state))
        if wanted is None:
            return job.attempt, is_over
        return wanted, is_over or job.attempt > wanted or (job.attempt == wanted and job.state != JobState.RUNNING)
