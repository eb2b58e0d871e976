"""Pages of lists: an opaque cursor is the sort key of a page's last row, as text."""

import base64
import binascii
import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import tuple_
from sqlalchemy.orm import Session

from xsam.services.errors import InvalidRequestError

Key = TypeVar("Key")
ROW_ID = re.compile(r"[a-z0-9]{1,32}")


def newest_first(
    session: Session, query: Any, model: Any, *, cursor: str | None, limit: int
) -> tuple[Sequence[Any], str | None]:
    """Return a page of a query, newest first, and the cursor of the next page, None on the last.

    Args:
        session: open for reading.
        query: selects `model` first, and perhaps more.
        model: has `created_at` and `id`.
        cursor: as the page before gave it.
        limit: rows on the page.

    Raises:
        InvalidRequestError: the cursor is not one of ours.
    """
    if cursor is not None:
        query = query.where(tuple_(model.created_at, model.id) < tuple_(*decode(cursor, _instant_and_id)))
    rows = session.execute(query.order_by(model.created_at.desc(), model.id.desc()).limit(limit + 1)).all()
    page = rows[:limit]
    return page, encode(page[-1][0].created_at.isoformat(), page[-1][0].id) if len(rows) > limit else None


def encode(*key: Any) -> str:
    """Return the cursor that continues after the row with this sort key, of JSON's values."""
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode()


def decode(cursor: str, read: Callable[..., Key], *, made: str = "") -> Key:
    """Return the sort key in a cursor.

    Args:
        cursor: any text.
        read: takes what `encode` was given and returns the key; a ValueError or TypeError refuses it.
        made: says how the earlier page was asked for, where that matters.

    Raises:
        InvalidRequestError: the text is not such a cursor.
    """
    try:
        return read(*json.loads(base64.urlsafe_b64decode(cursor.encode("ascii"))))
    except (ValueError, TypeError, OverflowError, RecursionError, binascii.Error) as e:
        message = f"cursor is {cursor[:80]!r}; allowed is the next_cursor of an earlier page{made}"
        raise InvalidRequestError(message, field="cursor") from e


def _instant_and_id(created_at: str, row_id: str) -> tuple[datetime, str]:
    instant = datetime.fromisoformat(created_at)
    if instant.tzinfo is None or not ROW_ID.fullmatch(row_id):
        raise ValueError("not an instant and an id")
    return instant.astimezone(UTC), row_id
