"""Ray's long error texts, as one sentence for people."""

import re

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
MAX_CHARS = 500


def sentence(error: BaseException) -> str:
    """Return the last line of the error's text, which names the cause, without terminal colours."""
    lines = [line.strip() for line in _COLOUR.sub("", str(error)).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:MAX_CHARS]
