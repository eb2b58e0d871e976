"""Engines and transactions: how a process opens the database, and the only places that commit."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, InvalidatePoolError, OperationalError
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from xsam.services.db.text import dump_json, keep_storable
from xsam.services.settings import SchedulingSettings

log = logging.getLogger(__name__)

AWAY = (OperationalError, InterfaceError)
"""What is raised when the database does not answer or is in trouble, so that the same call may succeed later. Other
errors (a value that a column can't hold, say) come again each time."""
_SQLITE_BUSY_TIMEOUT_S = 30.0
_LOOK_EVERY_S = 0.5
PING_AFTER_S = 1.0
"""A connection that has rested for so long is tried before it is used; a busy service saves the round trip."""
_RESTS_SINCE = "rests_since_s"
_SCHEDULING = "scheduling"
_DEFAULT_SCHEDULING = SchedulingSettings()


class DatabaseAwayError(RuntimeError):
    """The database does not answer."""


class Database:
    """One process's connection pool, with short transactions for reading and for writing.

    Safe to share between threads; not between processes (open one in each).

    Args:
        url: SQLAlchemy URL, `sqlite:///FILE` or `postgresql+psycopg://...`.
        pool_size: connections kept open (PostgreSQL).
        scheduling: what its sessions carry for those who book usage (`numbers_of`): whichever call ends an attempt, in
            whichever process, counts in the same units and with the same half-life.
    """

    def __init__(self, url: str, *, pool_size: int = 10, scheduling: SchedulingSettings = _DEFAULT_SCHEDULING) -> None:
        self._info = {_SCHEDULING: scheduling}
        self.engine = _create_engine(url, pool_size)
        # SQLite: a transaction that will write takes the write lock at once. Upgrading a read transaction later can
        # fail with SQLITE_BUSY however long the timeout is, because its snapshot is stale by then.
        self._write_engine = self.engine.execution_options(sqlite_begin="IMMEDIATE")
        self._each_engine = self.engine.execution_options(isolation_level="AUTOCOMMIT")

    def wait(self, within_s: float) -> None:
        """Return once the database answers, which may have been started at the same moment as this process.

        Raises:
            DatabaseAwayError: it did not within so many seconds.
        """
        deadline, has_told = time.monotonic() + within_s, False
        while True:
            try:
                with self.engine.connect():
                    return
            except AWAY as e:
                if time.monotonic() > deadline:
                    raise DatabaseAwayError(f"the database did not answer within {within_s:g} s: {refusal(e)}") from e
                if not has_told:
                    log.warning("the database does not answer, trying for %g s: %s", within_s, refusal(e))
                    has_told = True
            time.sleep(_LOOK_EVERY_S)

    @property
    def is_sqlite(self) -> bool:
        """Whether this is the embedded database."""
        return self.engine.dialect.name == "sqlite"

    def open(self, *, writes: bool) -> Session:
        """Return a session for callers that end it themselves; nothing waits before its first statement."""
        return Session(self._write_engine if writes else self.engine, expire_on_commit=False, info=self._info)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Open a session that only reads; whatever it flushed is rolled back."""
        with self.open(writes=False) as session:
            yield session

    @contextmanager
    def unit_of_work(self) -> Iterator[Session]:
        """Open a session that is committed when the block ends and rolled back when it raises."""
        with self.open(writes=True) as session, session.begin():
            yield session

    @contextmanager
    def one_statement(self) -> Iterator[Session]:
        """Open a session whose statements take effect each by itself, for what is asked again and again.

        On a server that is one round trip instead of three; SQLite, which has none to spare, uses a unit of work.
        """
        if self.is_sqlite:
            with self.unit_of_work() as session:
                yield session
        else:
            with Session(self._each_engine, expire_on_commit=False, info=self._info) as session:
                yield session

    def on_statement(self, tell: Callable[[float], None]) -> None:
        """Call `tell` after each statement with the seconds it took."""

        def start(connection: Any, cursor: Any, statement: str, values: Any, context: Any, is_many: bool) -> None:
            context.started_s = time.perf_counter()

        def end(connection: Any, cursor: Any, statement: str, values: Any, context: Any, is_many: bool) -> None:
            tell(time.perf_counter() - context.started_s)

        event.listen(self.engine, "before_cursor_execute", start)
        event.listen(self.engine, "after_cursor_execute", end)

    def dispose(self) -> None:
        """Close the pool's connections."""
        self.engine.dispose()


def refusal(error: Exception) -> str:
    """Return in one line why something can't be stored: the driver's own error where there is one."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    lines = str(cause).strip().splitlines() or [""]
    return f"{type(cause).__name__}: {lines[0]}"


def numbers_of(session: Session) -> SchedulingSettings:
    """Return the numbers by which usage is counted, as this process was told."""
    numbers: SchedulingSettings = session.info.get(_SCHEDULING, _DEFAULT_SCHEDULING)
    return numbers


def _create_engine(url: str, pool_size: int) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        engine = create_engine(url, json_serializer=dump_json, pool_size=pool_size, max_overflow=pool_size)
        keep_storable(engine)
        _ping_after_a_rest(engine)
        return engine
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": _SQLITE_BUSY_TIMEOUT_S}, json_serializer=dump_json)
    keep_storable(engine)
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _ping_after_a_rest(engine: Engine) -> None:
    """Replace connections that broke while nobody used them; SQLAlchemy's own way asks before every transaction."""

    def rest(connection: Any, record: ConnectionPoolEntry) -> None:
        record.info[_RESTS_SINCE] = time.monotonic()

    def wake(connection: Any, record: ConnectionPoolEntry, proxy: Any) -> None:
        since_s = record.info.pop(_RESTS_SINCE, None)
        if since_s is None or time.monotonic() - since_s < PING_AFTER_S:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as e:
            raise InvalidatePoolError("the connection broke while it rested") from e

    event.listen(engine, "checkin", rest)  # codespell:ignore checkin
    event.listen(engine, "checkout", wake)


def _configure_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # the driver must not begin transactions by itself
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    mode = connection.get_execution_options().get("sqlite_begin", "DEFERRED")
    connection.exec_driver_sql(f"BEGIN {mode}")
