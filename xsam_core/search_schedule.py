"""When XSAM searches alpha: by step count, by how far the angle has turned, or when told."""

from __future__ import annotations

from dataclasses import dataclass

from xsam_core.arguments import check_count, check_real

# Group values must survive a checkpoint, which None and NaN do not everywhere.
NEVER = -1
UNKNOWN_ANGLE = -1.0


@dataclass(frozen=True, slots=True)
class SearchSchedule:
    """Decides whether a step searches alpha, unless its caller does.

    The first step always does, so that an optimizer whose caller never asks is not SAM in disguise.

    Args:
        every: Search in steps 0, N, 2N, ...; None does not count.
        angle_change_rad: Search once the angle of the last step is further than this from the angle of the last
            search, > 0; None does not look. Reading the angle waits for the last step to finish.

    Raises:
        ArgumentError: An option is out of range.

    Example:
        >>> schedule = SearchSchedule(every=10)
        >>> schedule.is_due(step=10, searched_at=0, searched_angle_rad=0.1, angle_rad=0.1)
        True
    """

    every: int | None = None
    angle_change_rad: float | None = None

    def __post_init__(self) -> None:
        """Check the options under the names that XSAM gives them."""
        if self.every is not None:
            check_count("alpha_every", self.every)
        if self.angle_change_rad is not None:
            check_real("alpha_angle_change", self.angle_change_rad, low=0.0, open_ends=True)

    def is_due(self, *, step: int, searched_at: int, searched_angle_rad: float, angle_rad: float) -> bool:
        """Return whether step number `step` should search.

        Args:
            step: Its number, from 0.
            searched_at: Number of the last step that searched, or NEVER.
            searched_angle_rad: Angle of that step, or UNKNOWN_ANGLE.
            angle_rad: Angle of the step before this one, or UNKNOWN_ANGLE.
        """
        if searched_at == NEVER:
            return True
        if self.every is not None and step % self.every == 0:
            return True
        if self.angle_change_rad is None or UNKNOWN_ANGLE in (searched_angle_rad, angle_rad):
            return False
        return abs(angle_rad - searched_angle_rad) > self.angle_change_rad
