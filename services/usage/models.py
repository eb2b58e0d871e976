"""Rows of what teams and users have used: day by day for people, decayed to one number for the fair share."""

from datetime import date, datetime

from sqlalchemy import BigInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from xsam.services.db.base import Base


class UsageDay(Base):
    """What a user's ended attempts held on one day (UTC); an attempt over midnight is split."""

    __tablename__ = "usage_days"

    day: Mapped[date] = mapped_column(primary_key=True)
    team: Mapped[str] = mapped_column(String(63), primary_key=True)
    user_name: Mapped[str] = mapped_column(String(63), primary_key=True)
    gpu_s: Mapped[float]
    cpu_s: Mapped[float]
    num_attempts: Mapped[int]
    """Attempts that ended on this day."""


class OutcomeCount(Base):
    """How many attempts of a user ended in one way, since the table is there; kept for monitoring."""

    __tablename__ = "outcome_counts"

    team: Mapped[str] = mapped_column(String(63), primary_key=True)
    user_name: Mapped[str] = mapped_column(String(63), primary_key=True)
    outcome: Mapped[str] = mapped_column(String(32), primary_key=True)
    num_attempts: Mapped[int] = mapped_column(BigInteger)


class UsageShare(Base):
    """A user's decayed resource-seconds of ended attempts at `as_of`; see `xsam.services.usage.decay`."""

    __tablename__ = "usage_shares"

    team: Mapped[str] = mapped_column(String(63), primary_key=True)
    user_name: Mapped[str] = mapped_column(String(63), primary_key=True)
    value_resource_s: Mapped[float]
    as_of: Mapped[datetime]
