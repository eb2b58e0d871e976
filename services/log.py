"""Logging of the service's own processes: one line per record, on stderr."""

import logging
import sys


def set_up_logging(level: int = logging.INFO) -> None:
    """Send records of this process to stderr; called once by each entry point."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
