"""What becomes of text that no database stores: the one boundary that every value bound to a statement crosses.

Messages of exceptions, names of files and what a team's own code reports may hold lone surrogates, which UTF-8 has no
bytes for, or NUL, which PostgreSQL refuses. Both are spelled out, as Python would print them: the row is worth more
than the exact character.
"""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Dialect, Engine, String, event
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

MAX_FREE_CHARS = 100_000
"""Longer free text (a message, a traceback) loses its middle."""


class FreeText(TypeDecorator[str]):
    """Text of any length that people or programs wrote; stored up to `MAX_FREE_CHARS`."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Leave out the middle of what is too long."""
        if value is None or len(value) <= MAX_FREE_CHARS:
            return value
        half = MAX_FREE_CHARS // 2 - 50
        return f"{value[:half]}\n... {len(value) - 2 * half} characters left out ...\n{value[-half:]}"


def storable(text: str) -> str:
    """Return text that every database stores: NUL and lone surrogates are spelled out, all else stays."""
    if "\0" not in text and text.isascii():
        return text
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()


def dump_json(value: Any) -> str:
    """Return a document for a JSON column, all of its texts and keys storable."""
    text = json.dumps(value)
    if "\\u0000" in text or "\\ud" in text:
        return json.dumps(_spelled_out(value))
    return text


def keep_storable(engine: Engine) -> None:
    """Have every text that the engine's statements bind pass through `storable`."""
    event.listen(engine, "before_cursor_execute", _clean_parameters, retval=True)


def _clean_parameters(
    connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
) -> tuple[str, Any]:
    # A batch of an INSERT ... RETURNING counts as many although it is one statement with one set.
    is_many = executemany and isinstance(parameters, list)
    return statement, [_clean(one) for one in parameters] if is_many else _clean(parameters)


def _clean(parameters: Any) -> Any:
    """Return one set of parameters, the very same where nothing has to be spelled out."""
    values = parameters.values() if isinstance(parameters, Mapping) else parameters
    if all(not isinstance(value, str) or ("\0" not in value and value.isascii()) for value in values):
        return parameters
    if isinstance(parameters, Mapping):
        return {name: _cleaned(value) for name, value in parameters.items()}
    return type(parameters)(_cleaned(value) for value in parameters)


def _cleaned(value: Any) -> Any:
    return storable(value) if isinstance(value, str) else value


def _spelled_out(value: Any) -> Any:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {_spelled_out(key): _spelled_out(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_spelled_out(item) for item in value]
    return value


class ascii_lower(FunctionElement[str]):  # noqa: N801 - a function of SQL
    """ASCII text in lower case; without a collation PostgreSQL takes five times as long for it."""

    name = "ascii_lower"
    inherit_cache = True
    type = String()


@compiles(ascii_lower)
def _lower(element: ascii_lower, compiler: SQLCompiler, **options: Any) -> str:
    return f"lower({compiler.process(element.clauses, **options)})"


@compiles(ascii_lower, "postgresql")
def _postgresql_lower(element: ascii_lower, compiler: SQLCompiler, **options: Any) -> str:
    return f'lower({compiler.process(element.clauses, **options)} COLLATE "C")'
