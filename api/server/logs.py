"""Where the server's own log lines go: a file that is rotated, or stderr for those who collect it there."""

import logging
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path

from xsam.services.teams import token_text

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_MAX_BYTES = 10_000_000
_NUM_OLD_FILES = 3


def log_to_file(path: Path) -> None:
    """Send all records to a file, and those a person must see to stderr as well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = RotatingFileHandler(path, maxBytes=_MAX_BYTES, backupCount=_NUM_OLD_FILES, encoding="utf-8")
    file.setFormatter(_Formatter(_FORMAT))
    stderr = logging.StreamHandler(sys.stderr)
    stderr.setLevel(logging.WARNING)
    stderr.setFormatter(_Formatter("%(levelname)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[file, stderr])


class _Formatter(logging.Formatter):
    """Writes no token, whatever path it came into a record: a URL, an exception's text, a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        return token_text.redact(super().format(record))
