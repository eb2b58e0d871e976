"""One look at the database for all who listen: what changes is read once a process, however many streams are open."""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from fastapi.concurrency import run_in_threadpool
from fastapi.sse import format_sse_event
from sqlalchemy.exc import DBAPIError

from xsam.services.db.session import Database
from xsam.services.reports import changes
from xsam.services.reports.changes import ChangesRead, JobChange, Position

logger = logging.getLogger(__name__)

LOOK_S = 0.5
_TROUBLE_S = 2.0
_MOST_UNSENT = 240
"""Looks that a listener may be behind; one that is too slow for that reads its view anew."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one look has found.

    Args:
        cursor: where to go on after it.
        items: how what has changed stands now.
        touched: jobs that have new events.
        is_reload: there was too much to say it all.
    """

    cursor: str
    items: Sequence[JobChange]
    touched: frozenset[str] = frozenset()
    is_reload: bool = False
    _messages: dict[str | None, bytes | None] = field(default_factory=dict)

    def message(self, team: str | None) -> bytes | None:
        """Return the server-sent event for those who see this team (None: all); None where it is nothing to them."""
        if team not in self._messages:
            items = [item for item in self.items if team in (None, item.team)]
            answer = ChangesRead(items=items, cursor=self.cursor, reload=self.is_reload)
            self._messages[team] = as_event(answer) if items or self.is_reload else None
        return self._messages[team]


def as_event(answer: ChangesRead) -> bytes:
    """Return an answer as a server-sent event; a browser's EventSource comes back with its cursor by itself."""
    kind = "reload" if answer.reload else "changes"
    return format_sse_event(data_str=answer.model_dump_json(), event=kind, id=answer.cursor)


class Listener:
    """What one stream has not taken yet; used on the event loop only."""

    def __init__(self) -> None:
        self.is_over = False
        """Whether nothing will come any more."""
        self._unsent: deque[Batch] = deque()
        self._has_some = asyncio.Event()

    async def take(self, timeout_s: float) -> Batch | None:
        """Return what came next; None where nothing came in time, or ever will."""
        if not self._unsent and not self.is_over:
            try:
                await asyncio.wait_for(self._has_some.wait(), timeout_s)
            except TimeoutError:
                return None
        self._has_some.clear()
        return self._unsent.popleft() if self._unsent else None

    def put(self, batch: Batch) -> None:
        """Add what a look has found."""
        if len(self._unsent) >= _MOST_UNSENT:
            touched = batch.touched.union(*(unsent.touched for unsent in self._unsent))
            self._unsent.clear()
            batch = Batch(batch.cursor, (), touched, is_reload=True)
        self._unsent.append(batch)
        self._has_some.set()

    def close(self) -> None:
        """Say that nothing will come any more."""
        self.is_over = True
        self._has_some.set()


class Hub:
    """Looks for changes while somebody listens. Used on one event loop.

    Args:
        database: of the service.
        closing: set when the server is about to stop; everybody's listening ends then.
    """

    def __init__(self, database: Database, closing: threading.Event) -> None:
        self._database = database
        self._closing = closing
        self._listeners: set[Listener] = set()
        self._task: asyncio.Task[None] | None = None
        self._has_begun = asyncio.Event()
        self._settled = 0
        self._seen: set[int] = set()
        self._running: dict[str, JobChange] = {}
        self.num_looks = 0
        """For those who measure."""

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[Listener]:
        """Have everything that changes from now on; what was before is the caller's to read, after this begins."""
        listener = Listener()
        self._listeners.add(listener)
        if self._task is None or self._task.done():
            self._has_begun.clear()
            self._task = asyncio.create_task(self._run())
        try:
            await self._has_begun.wait()
            yield listener
        finally:
            self._listeners.discard(listener)

    async def _run(self) -> None:
        is_first = True
        try:
            while self._listeners and not self._closing.is_set():
                pause_s = LOOK_S
                try:
                    batch = await run_in_threadpool(self._begin if is_first else self._look)
                except DBAPIError as e:
                    logger.warning("the look for changes failed: %s", str(e).splitlines()[0])
                    pause_s = _TROUBLE_S
                else:
                    is_first = False
                    self._has_begun.set()
                    if batch is not None:
                        for listener in self._listeners:
                            listener.put(batch)
                await asyncio.sleep(pause_s)
        finally:
            self._has_begun.set()
            for listener in self._listeners:
                listener.close()
            self._listeners.clear()
            self._task = None

    def _begin(self) -> None:
        with self._database.read() as session:
            self._settled = changes.present(session).event_id
            _, found = changes.new_events(session, self._settled)
            self._seen = {event.id for event in found}
            self._running = changes.running(session)

    def _look(self) -> Batch | None:
        self.num_looks += 1
        with self._database.read() as session:
            now, found = changes.new_events(session, self._settled)
            fresh = [event for event in found if event.id not in self._seen]
            kinds = changes.by_job((event.job_id, event.kind) for event in fresh)
            running = changes.running(session)
            ended = self._running.keys() - running.keys()
            standing = changes.standing(session, kinds.keys() | ended, kinds)
        moved = {job_id: change for job_id, change in running.items() if change != self._running.get(job_id)}
        self._running = running
        settled = [event.id for event in found if event.is_settled]
        self._settled = max(settled, default=self._settled)
        self._seen = {event.id for event in found if event.id > self._settled}
        items = list((moved | standing).values())
        if not items:
            return None
        cursor = str(Position(self._settled, now))
        is_reload = len(items) > changes.MOST
        return Batch(cursor, () if is_reload else items, frozenset(kinds), is_reload=is_reload)
