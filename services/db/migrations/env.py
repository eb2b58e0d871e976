"""Alembic's entry: runs the migrations on the connection that `xsam.services.db.migrate` hands over."""

import warnings
from typing import Any, Literal

from alembic import context

from xsam.services.db import base
from xsam.services.db.text import FreeText


def _render_item(kind: str, item: Any, _: Any) -> str | Literal[False]:
    for name in ("JsonColumn", "BigId"):
        if kind == "type" and item is getattr(base, name):
            return f"base.{name}"
    if isinstance(item, FreeText):
        return "sa.String()"
    return "base.UtcDateTime()" if isinstance(item, base.UtcDateTime) else False


def _include_name(name: str | None, kind: str, _: Any) -> bool:
    return kind != "index" or name not in _uncompared


def _include_object(item: Any, name: str | None, kind: str, *_: Any) -> bool:
    return _include_name(name, kind, None)


connection = context.config.attributes["connection"]
metadata = context.config.attributes["models"]
_uncompared = {
    index.name
    for table in metadata.tables.values()
    for index in table.indexes
    if index.info.get("checked_on", connection.dialect.name) != connection.dialect.name
}
context.configure(
    connection=connection,
    target_metadata=metadata,
    render_as_batch=connection.dialect.name == "sqlite",
    compare_type=True,
    render_item=_render_item,
    include_name=_include_name,
    include_object=_include_object,
)
with warnings.catch_warnings():
    # SQLite's descending indexes, which are compared on PostgreSQL alone.
    warnings.filterwarnings("ignore", "autogenerate skipping metadata-specified expression-based index")
    context.run_migrations()
