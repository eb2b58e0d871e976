"""Rows of webhooks, and of what is to be sent to them: written with the end of a job, deleted a while after."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from xsam.services.db.base import Base, new_id
from xsam.services.db.clock import db_now


class Webhook(Base):
    """An address that a team wants to be told at when its jobs or studies end."""

    __tablename__ = "webhooks"

    id: Mapped[str] = mapped_column(String(12), primary_key=True, default=new_id)
    team: Mapped[str] = mapped_column(String(63))
    url: Mapped[str]
    kinds: Mapped[list[str]]
    """`job`, `study`, or both."""
    secret: Mapped[str] = mapped_column(String(100))
    """Signs what is sent; the service needs it as it is."""
    made_by: Mapped[str] = mapped_column(String(63))
    created_at: Mapped[datetime] = mapped_column(default=db_now())

    __table_args__ = (Index("ix_webhooks_team", "team", "created_at"),)


class Delivery(Base):
    """One message to one webhook, until it has arrived or is given up."""

    __tablename__ = "webhook_deliveries"

    id: Mapped[str] = mapped_column(String(12), primary_key=True, default=new_id)
    """The receiver sees it, the same at each try."""
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    payload: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=db_now())
    next_at: Mapped[datetime | None] = mapped_column(default=db_now())
    """When it is tried next; null once it has arrived or is given up."""
    num_tries: Mapped[int] = mapped_column(default=0)
    delivered_at: Mapped[datetime | None]
    error: Mapped[str | None]
    """What went wrong at the last try."""

    __table_args__ = (
        Index("ix_webhook_deliveries_due", "next_at"),
        Index("ix_webhook_deliveries_webhook", "webhook_id", "created_at"),
    )
