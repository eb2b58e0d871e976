"""INSERT ... ON CONFLICT on both databases."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from xsam.services.db.base import Base

_REPLACE, _ADD, _KEEP = "replace", "add", "keep"


def upsert(session: Session, model: type[Base], rows: Sequence[dict[str, Any]], *, keys: Sequence[str]) -> None:
    """Insert rows, replacing the named columns of those whose keys exist already.

    Args:
        session: open in a unit of work.
        model: the mapped class; its primary key or a unique constraint covers `keys`.
        rows: values by column name, every row with the same names; no SQL expressions.
        keys: columns that identify a row.
    """
    _write(session, model, rows, keys, _REPLACE)


def add_up(session: Session, model: type[Base], rows: Sequence[dict[str, Any]], *, keys: Sequence[str]) -> None:
    """Insert rows, adding the numbers of those whose keys exist already to what is there. Arguments as for `upsert`."""
    _write(session, model, rows, keys, _ADD)


def insert_missing(session: Session, model: type[Base], rows: Sequence[dict[str, Any]], *, keys: Sequence[str]) -> None:
    """Insert those rows whose keys do not exist yet; the others stay as they are. Arguments as for `upsert`."""
    _write(session, model, rows, keys, _KEEP)


def _write(
    session: Session, model: type[Base], rows: Sequence[dict[str, Any]], keys: Sequence[str], conflict: str
) -> None:
    if not rows:
        return
    session.flush()
    dialect = session.get_bind().dialect.name
    session.execute(_statement(dialect, model, tuple(rows[0]), tuple(keys), conflict), list(rows))


@lru_cache(maxsize=256)
def _statement(dialect: str, model: type[Base], names: tuple[str, ...], keys: tuple[str, ...], conflict: str) -> Any:
    """Return a statement over the bare table, the same object each time.

    Built and compiled anew for each call, it takes many times as long as the database takes to execute it.
    """
    table = model.__table__
    statement: Any = (sqlite if dialect == "sqlite" else postgresql).insert(table)
    if conflict == _KEEP:
        return statement.on_conflict_do_nothing(index_elements=list(keys))
    new = {name: statement.excluded[name] for name in names if name not in keys}
    if conflict == _ADD:
        new = {name: table.c[name] + value for name, value in new.items()}
    return statement.on_conflict_do_update(index_elements=list(keys), set_=new)
