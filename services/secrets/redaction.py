"""Taking the values of secrets out of what a run prints and how it failed. Light: runners and ranks load it."""

import json
from collections.abc import Iterable

INSTEAD = "***"


class Redaction:
    """Replaces values in texts, as they are and as Python and JSON write them; without values it is false.

    A value that somebody has cut, encoded or spread over lines is not found.

    Args:
        values: of secrets.
    """

    def __init__(self, values: Iterable[str] = ()) -> None:
        written = {form for value in values for form in (value, repr(value)[1:-1], json.dumps(value)[1:-1])}
        self._written = sorted(written, key=len, reverse=True)  # a value may be a part of another one

    def __bool__(self) -> bool:
        return bool(self._written)

    def __call__(self, text: str) -> str:
        """Return the text without the values."""
        for form in self._written:
            text = text.replace(form, INSTEAD)
        return text
