"""Log lines of the service's own processes: readable or JSON, to stderr or to files that are rotated.

A line carries what it is about: the request, or the job and the attempt. What training code prints is no such line; it
lies with its attempt (`xsam.services.artifacts.logs`).
"""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from xsam.services.settings import LogSettings
from xsam.services.teams import token_text

_KEYS = ("request_id", "job", "attempt")
_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

Lines = logging.LoggerAdapter[logging.Logger]


def of_attempt(logger: logging.Logger, job_id: str, attempt: int) -> Lines:
    """Return a logger whose lines say which attempt they are about."""
    return logging.LoggerAdapter(logger, {"job": job_id, "attempt": attempt})


@contextmanager
def of_request(request_id: str) -> Iterator[None]:
    """Have all lines that are logged while the block runs, also in the threads it waits for, carry the request's id."""
    token = _request_id.set(request_id)
    try:
        yield
    finally:
        _request_id.reset(token)


def to_stderr(settings: LogSettings) -> None:
    """Send all records of this process to stderr; called once by each entry point."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(settings))
    _install(handler)


def to_file(path: Path, settings: LogSettings) -> None:
    """Send all records of this process to a file, and those a person must see to stderr as well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stderr = logging.StreamHandler(sys.stderr)
    stderr.setLevel(logging.WARNING)
    stderr.setFormatter(_Text("%(levelname)s: %(message)s"))
    _install(_rotated(path, settings), stderr)


class AttemptFile:
    """The file with a runner's own lines about one attempt, beside what its ranks print; there once there is one.

    Args:
        folder: of the attempt.
        job_id: whose.
        attempt: its number.
        settings: how lines look and how long the file may get.
    """

    def __init__(self, folder: Path, job_id: str, attempt: int, settings: LogSettings) -> None:
        with suppress(OSError):  # a full disk costs the lines, not the attempt
            folder.mkdir(parents=True, exist_ok=True)
        self._handler = _rotated(folder / "runner.log", settings)
        self._handler.addFilter(lambda record: (_of(record, "job"), _of(record, "attempt")) == (job_id, attempt))
        _install(self._handler)

    def close(self) -> None:
        """Write no more."""
        logging.getLogger().removeHandler(self._handler)
        self._handler.close()


def _install(*handlers: logging.Handler) -> None:
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    for handler in handlers:
        root.addHandler(handler)


def _rotated(path: Path, settings: LogSettings) -> logging.Handler:
    handler = RotatingFileHandler(
        path, maxBytes=settings.max_bytes, backupCount=settings.num_old_files, encoding="utf-8", delay=True
    )
    handler.setFormatter(formatter(settings))
    return handler


def formatter(settings: LogSettings) -> logging.Formatter:
    """Return how lines are written."""
    return _Json() if settings.format == "json" else _Text(_TEXT)


class _Text(logging.Formatter):
    """Readable lines. No token is written, whatever way it came: a URL, an exception's text, a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        found = [f"{key.removesuffix('_id')} {value}" for key, value in _about(record).items()]
        text = super().format(record)
        first, newline, rest = text.partition("\n")
        marked = f"{first} [{', '.join(found)}]{newline}{rest}" if found else text
        return token_text.redact(marked)


class _Json(logging.Formatter):
    """A JSON document on each line; a traceback is a text in it."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"at": at, "level": record.levelname.lower(), "logger": record.name}
        fields = _of(record, "fields")
        line |= {"message": record.getMessage()} if fields is None else fields
        line |= _about(record)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return token_text.redact(json.dumps(line, default=str))


def _about(record: logging.LogRecord) -> dict[str, Any]:
    found = {"request_id": _request_id.get(), "job": _of(record, "job"), "attempt": _of(record, "attempt")}
    return {key: found[key] for key in _KEYS if found[key] is not None}


def _of(record: logging.LogRecord, name: str) -> Any:
    """Return what a record was given beside its message."""
    return getattr(record, name, None)
