"""What the API shows of usage."""

from datetime import date, datetime

from xsam.services.schemas import Read


class UsageItem(Read):
    """What one user held on one day (UTC); running attempts count up to now."""

    day: date
    team: str
    user: str
    gpu_hours: float
    cpu_hours: float
    num_attempts: int
    """Attempts that ended on this day."""


class ShareRead(Read):
    """Where a team stands in the fair share: those below their part go first."""

    team: str
    weight: float
    usage_fraction: float
    """The team's part of all teams' usage, which counts half after each half-life, 0 to 1."""
    entitled_fraction: float
    """The team's part by weight, 0 to 1."""


class UsageRead(Read):
    """Usage over time and the fair shares now."""

    since: date
    until: date
    """Inclusive."""
    as_of: datetime
    half_life_s: float
    items: list[UsageItem]
    """By day, then team and user."""
    shares: list[ShareRead]
