"""What a team may hold at once: a plain value, read by the limits of teams and by the scheduling policy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TeamQuota:
    """What a team may hold at once; None is no limit."""

    gpus: float | None = None
    cpus: float | None = None
    running_jobs: int | None = None

    def __post_init__(self) -> None:
        """Refuse negative limits."""
        for name in ("gpus", "cpus", "running_jobs"):
            limit = getattr(self, name)
            if limit is not None and limit < 0:
                raise ValueError(f"{name} is {limit!r}, allowed: 0 or more, or None for no limit")
