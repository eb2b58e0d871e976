"""The two clocks: this process's for rows it describes, the database's for leases and deadlines."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Float, SQLColumnExpression, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from xsam.services.db.base import UtcDateTime


def utc_now() -> datetime:
    """Return the present instant of this process's clock, timezone-aware."""
    return datetime.now(UTC)


class DbNow(FunctionElement[datetime]):
    """The database's clock, shifted by some seconds, as an SQL expression."""

    name = "db_now"
    inherit_cache = True
    type = UtcDateTime()


def db_now(offset_s: float | SQLColumnExpression[Any] = 0.0) -> DbNow:
    """Return the database's clock plus `offset_s` seconds as an SQL expression; NULL where the offset is NULL.

    Every comparison of a lease or deadline uses it, so processes on machines whose clocks differ still agree.
    """
    if isinstance(offset_s, int | float):
        return DbNow(bindparam(None, float(offset_s), type_=Float(), unique=True))
    return DbNow(offset_s)


@compiles(DbNow, "sqlite")
def _sqlite_now(element: DbNow, compiler: SQLCompiler, **options: Any) -> str:
    # %f has milliseconds; the zeros make the text as long as SQLAlchemy's own, so that comparing texts compares times.
    offset = compiler.process(element.clauses, **options)
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', ({offset}) || ' seconds')"


@compiles(DbNow, "postgresql")
def _postgresql_now(element: DbNow, compiler: SQLCompiler, **options: Any) -> str:
    # A subquery is evaluated once; the bare function, being volatile, is for every row, and keeps indexes from use.
    now = f"clock_timestamp() + make_interval(secs => {compiler.process(element.clauses, **options)})"
    return f"(SELECT {now})"
