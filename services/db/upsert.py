"""INSERT ... ON CONFLICT on both databases."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from services.db.base import Base


def upsert(session: Session, model: type[Base], rows: Sequence[dict[str, Any]], *, keys: Sequence[str]) -> None:
    """Insert rows, replacing the named columns of those whose keys exist already.

    Args:
        session: open in a unit of work.
        model: the mapped class; its primary key or a unique constraint covers `keys`.
        rows: values by column name, every row with the same names.
        keys: columns that identify a row.
    """
    if not rows:
        return
    statement = _insert(session, model, rows)
    replaced = {name: statement.excluded[name] for name in rows[0] if name not in keys}
    session.execute(statement.on_conflict_do_update(index_elements=list(keys), set_=replaced))


def add_up(session: Session, model: type[Base], rows: Sequence[dict[str, Any]], *, keys: Sequence[str]) -> None:
    """Insert rows, adding the numbers of those whose keys exist already to what is there. Arguments as for `upsert`."""
    if not rows:
        return
    statement = _insert(session, model, rows)
    table = model.__table__
    sums = {name: table.c[name] + statement.excluded[name] for name in rows[0] if name not in keys}
    session.execute(statement.on_conflict_do_update(index_elements=list(keys), set_=sums))


def insert_missing(session: Session, model: type[Base], rows: Sequence[dict[str, Any]], *, keys: Sequence[str]) -> None:
    """Insert those rows whose keys do not exist yet; the others stay as they are. Arguments as for `upsert`."""
    if rows:
        session.execute(_insert(session, model, rows).on_conflict_do_nothing(index_elements=list(keys)))


def _insert(session: Session, model: type[Base], rows: Sequence[dict[str, Any]]) -> Any:
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    return dialect.insert(model).values(list(rows))
