"""Rows of teams' secrets, encrypted: who reads the database or a backup of it reads no value."""

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from xsam.services.db.base import Base
from xsam.services.db.clock import db_now


class Secret(Base):
    """A value that a team's jobs get as an environment variable."""

    __tablename__ = "secrets"

    team: Mapped[str] = mapped_column(String(63), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    sealed: Mapped[str]
    """What `sealing` makes of the value; of no use under another team or name."""
    set_by: Mapped[str] = mapped_column(String(63))
    set_at: Mapped[datetime] = mapped_column(default=db_now())
