"""Where the server's own log lines go: a file that is rotated, or stderr for those who collect it there."""

import logging
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_MAX_BYTES = 10_000_000
_NUM_OLD_FILES = 3


def log_to_file(path: Path) -> None:
    """Send all records to a file, and those a person must see to stderr as well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = RotatingFileHandler(path, maxBytes=_MAX_BYTES, backupCount=_NUM_OLD_FILES, encoding="utf-8")
    file.setFormatter(logging.Formatter(_FORMAT))
    stderr = logging.StreamHandler(sys.stderr)
    stderr.setLevel(logging.WARNING)
    stderr.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[file, stderr])
