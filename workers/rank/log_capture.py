"""Everything a rank prints or logs, into its log file in the artifact store."""

import contextlib
import io
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from xsam.services.artifacts.logs import LogWriter
from xsam.services.secrets.redaction import Redaction

_FORMAT = "%(levelname)s %(name)s: %(message)s"


@contextlib.contextmanager
def captured_output(folder: Path, rank: int, hide: Redaction) -> Iterator[LogWriter]:
    """Send stdout, stderr, warnings and Python logging of this process to the rank's log while the block runs.

    With something to hide nothing of it is passed on to the process's own output, which Ray writes to files.

    Args:
        folder: `JobFolder.logs(attempt)`.
        rank: the process's rank.
        hide: takes secrets out of each line.
    """
    writer = _HidingWriter(folder, rank, hide)
    stdout, stderr = (None, None) if hide else (sys.stdout, sys.stderr)
    handler = logging.StreamHandler(_LineStream(writer))
    handler.setFormatter(logging.Formatter(_FORMAT))
    root = logging.getLogger()
    old_level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        with (
            contextlib.redirect_stdout(_LineStream(writer, stdout)),
            contextlib.redirect_stderr(_LineStream(writer, stderr)),
        ):
            yield writer
    finally:
        logging.captureWarnings(False)
        root.setLevel(old_level)
        root.removeHandler(handler)
        writer.close()


class _HidingWriter(LogWriter):
    def __init__(self, folder: Path, rank: int, hide: Redaction) -> None:
        super().__init__(folder, rank)
        self._hide = hide

    def write(self, text: str) -> None:
        super().write(self._hide(text))


class _LineStream(io.TextIOBase):
    """A text stream that writes whole lines to the log and passes everything on to the original stream."""

    def __init__(self, writer: LogWriter, original: TextIO | None = None) -> None:
        self._writer = writer
        self._original = original
        self._partial = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self._original is not None:
            self._original.write(text)
        *lines, self._partial = (self._partial + text).split("\n")
        for line in lines:
            self._writer.write(line.rsplit("\r", 1)[-1])
        return len(text)

    def flush(self) -> None:
        if self._original is not None:
            self._original.flush()
