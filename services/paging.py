"""Opaque cursors: the sort key of the last row of a page, as text."""

import base64
import binascii
import json
import re
from datetime import UTC, datetime

from xsam.services.errors import InvalidRequestError

_ROW_ID = re.compile(r"[a-z0-9]{1,32}")


def encode(created_at: datetime, row_id: str) -> str:
    """Return the cursor that continues after this row."""
    return base64.urlsafe_b64encode(json.dumps([created_at.isoformat(), row_id]).encode()).decode()


def decode(cursor: str) -> tuple[datetime, str]:
    """Return the sort key in a cursor.

    Raises:
        InvalidRequestError: the text is not a cursor that `encode` made.
    """
    try:
        created_at, row_id = json.loads(base64.urlsafe_b64decode(cursor.encode("ascii")))
        instant = datetime.fromisoformat(created_at)
        if instant.tzinfo is None or not _ROW_ID.fullmatch(row_id):
            raise ValueError("not an instant and an id")
        instant = instant.astimezone(UTC)
    except (ValueError, TypeError, OverflowError, RecursionError, binascii.Error) as e:
        message = f"cursor is {cursor[:80]!r}; allowed is the next_cursor of an earlier page"
        raise InvalidRequestError(message, field="cursor") from e
    return instant, row_id
