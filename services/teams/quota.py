"""What a team may hold at once: a plain value, read by the limits of teams and by the scheduling policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class TeamQuota:
    """What a team may hold at once; None is no limit."""

    gpus: float | None = None
    cpus: float | None = None
    running_jobs: int | None = None
    gpus_by_kind: Mapping[str, float] = field(default_factory=dict)
    """GPUs of each of these kinds, in lower case; kinds that are not named count for `gpus` alone."""

    def __post_init__(self) -> None:
        """Refuse negative limits."""
        for name in ("gpus", "cpus", "running_jobs"):
            limit = getattr(self, name)
            if limit is not None and limit < 0:
                raise ValueError(f"{name} is {limit!r}, allowed: 0 or more, or None for no limit")
        for kind, limit in self.gpus_by_kind.items():
            if limit < 0 or kind != kind.lower():
                raise ValueError(f"gpus_by_kind has {kind!r}: {limit!r}, allowed: kinds in lower case, 0 or more")
