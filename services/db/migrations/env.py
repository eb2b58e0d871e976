"""Alembic's entry: runs the migrations on the connection that `services.db.migrate` hands over."""

from typing import Any, Literal

from alembic import context

from services.db import types
from services.db.schema import metadata


def _render_item(kind: str, item: Any, _: Any) -> str | Literal[False]:
    for name in ("JsonColumn", "BigId"):
        if kind == "type" and item is getattr(types, name):
            return f"types.{name}"
    return "types.UtcDateTime()" if isinstance(item, types.UtcDateTime) else False


connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    render_as_batch=connection.dialect.name == "sqlite",
    compare_type=True,
    render_item=_render_item,
)
context.run_migrations()
