"""Where a node keeps environments; light, since it crosses Ray."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class EnvironmentStore:
    """Where a node keeps environments, and whence their packages come.

    Args:
        root: folder of the node.
        index: an index's address, or a folder of wheels; None is uv's default.
        max_bytes: above it those not used for longest are deleted.
    """

    root: Path
    index: str | None
    max_bytes: int
