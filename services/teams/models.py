"""Rows of teams, users, memberships, tokens, and of the audit trail of their changes."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, false
from sqlalchemy.orm import Mapped, mapped_column

from xsam.services.db.base import Base, BigId, new_id
from xsam.services.db.clock import db_now
from xsam.services.teams.roles import Role

_ROLES = ", ".join(f"'{role}'" for role in Role)


class Team(Base):
    """Who shares the cluster: its weight in fair share and what it may hold at once (null is no limit)."""

    __tablename__ = "teams"

    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    weight: Mapped[float] = mapped_column(default=1.0)
    quota_gpus: Mapped[float | None]
    quota_cpus: Mapped[float | None]
    quota_running_jobs: Mapped[int | None]
    quota_gpus_by_kind: Mapped[dict[str, Any] | None]
    """GPUs at most, by kind in lower case."""
    retention: Mapped[dict[str, Any] | None]
    """`Retention` as a document: what is kept for how long, where it is not as everywhere."""
    idle: Mapped[dict[str, Any] | None]
    """`IdlePolicy` as a document: what is done about idle GPUs, where it is not as everywhere."""
    number: Mapped[int | None]
    """By which nodes know it (`numbers.py`), from its first isolated run on; never another team's."""
    created_at: Mapped[datetime] = mapped_column(default=db_now())
    disabled_at: Mapped[datetime | None]
    """Since when nobody speaks for it and it takes no new jobs."""
    deleted_at: Mapped[datetime | None]
    """Since when it is in no list, and disabled as well; its name stays with its jobs."""

    __table_args__ = (
        CheckConstraint("weight > 0", name="weight_is_positive"),
        Index("ix_teams_number", "number", unique=True),
    )


class User(Base):
    """A person or a program that calls."""

    __tablename__ = "users"

    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    is_admin: Mapped[bool] = mapped_column(default=False)
    """Whether the user is an admin of the whole service."""
    is_service: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether this is a service account: a program's user, in one team, without a person who could sign on."""
    created_at: Mapped[datetime] = mapped_column(default=db_now())
    disabled_at: Mapped[datetime | None]
    """Since when no token speaks for the user."""
    deleted_at: Mapped[datetime | None]
    """Since when the user is in no list and no team, and disabled as well; the name stays with what they did."""


class Membership(Base):
    """A user's role in a team."""

    __tablename__ = "memberships"

    team_name: Mapped[str] = mapped_column(ForeignKey("teams.name"), primary_key=True)
    user_name: Mapped[str] = mapped_column(ForeignKey("users.name"), primary_key=True)
    role: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime] = mapped_column(default=db_now())

    __table_args__ = (
        CheckConstraint(f"role IN ({_ROLES})", name="role"),
        Index("ix_memberships_user", "user_name"),
    )


class Token(Base):
    """A secret that speaks for one user in one team. Only its digest is kept."""

    __tablename__ = "tokens"

    id: Mapped[str] = mapped_column(String(12), primary_key=True, default=new_id)
    label: Mapped[str | None] = mapped_column(String(100))
    """What its owner calls it."""
    user_name: Mapped[str] = mapped_column(ForeignKey("users.name"))
    team_name: Mapped[str] = mapped_column(ForeignKey("teams.name"))
    prefix: Mapped[str] = mapped_column(String(16))
    """How the token begins, so that people can tell theirs apart."""
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    """SHA-256 of the whole token, in hexadecimal."""
    created_by: Mapped[str] = mapped_column(String(63))
    parent_id: Mapped[str | None] = mapped_column(String(12))
    """The token it was made with, whose end is its own; none where its maker needed no token."""
    created_at: Mapped[datetime] = mapped_column(default=db_now())
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    """Exact to a minute."""

    __table_args__ = (
        Index("ix_tokens_user_team", "user_name", "team_name"),
        Index("ix_tokens_team_created", "team_name", "created_at", "id"),
        Index("ix_tokens_created", "created_at", "id"),
        Index("ix_tokens_parent", "parent_id"),
    )


class SignIn(Base):
    """A browser's session, which a token began and which ends with it. Only the digest of its secret is kept."""

    __tablename__ = "sessions"

    id: Mapped[str] = mapped_column(String(12), primary_key=True, default=new_id)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    """SHA-256 of the secret, in hexadecimal."""
    token_id: Mapped[str] = mapped_column(ForeignKey("tokens.id"))
    user_agent: Mapped[str | None] = mapped_column(String(200))
    """What the browser calls itself, so that people can tell theirs apart."""
    created_at: Mapped[datetime] = mapped_column(default=db_now())
    last_used_at: Mapped[datetime] = mapped_column(default=db_now())
    """Exact to a minute."""
    expires_at: Mapped[datetime]
    """However much it is used."""

    __table_args__ = (Index("ix_sessions_token", "token_id"), Index("ix_sessions_expires", "expires_at"))


class Identity(Base):
    """A person as a sign-on provider knows them, and the user they are here. Names may change there; this does not."""

    __tablename__ = "identities"

    issuer: Mapped[str] = mapped_column(String(255), primary_key=True)
    subject: Mapped[str] = mapped_column(String(255), primary_key=True)
    """The provider's own name for the person, which it gives to nobody else."""
    user_name: Mapped[str] = mapped_column(ForeignKey("users.name"), unique=True)
    created_at: Mapped[datetime] = mapped_column(default=db_now())


class DeviceCode(Base):
    """A program that waits for a person to confirm it at the page. Only the digests of both its codes are kept."""

    __tablename__ = "device_codes"

    id: Mapped[str] = mapped_column(String(12), primary_key=True, default=new_id)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    """SHA-256 of the code that the program asks with, in hexadecimal."""
    user_code_digest: Mapped[str] = mapped_column(String(64), unique=True)
    """The same of the short code that the person reads and confirms."""
    label: Mapped[str | None] = mapped_column(String(100))
    """What the program calls itself; nobody has checked it."""
    address: Mapped[str] = mapped_column(String(64))
    """Where it called from."""
    created_at: Mapped[datetime] = mapped_column(default=db_now())
    expires_at: Mapped[datetime]
    """Nobody confirms it any more from then on, and it asks in vain."""
    interval_s: Mapped[float]
    """The program may ask at most so often; longer after it has not kept to it."""
    asked_at: Mapped[datetime | None]
    """When it asked last."""
    decided_at: Mapped[datetime | None]
    """When a person confirmed or refused it."""
    approved_by: Mapped[str | None] = mapped_column(ForeignKey("tokens.id"))
    """The token with which they confirmed it, and which the program's token is made with; none if they refused."""
    used_at: Mapped[datetime | None]
    """When the program got its token; it gets no second one."""

    __table_args__ = (Index("ix_device_codes_expires", "expires_at"),)


class AuditEvent(Base):
    """A change of teams, users or tokens, and who made it; never changed once written."""

    __tablename__ = "audit_events"

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    at: Mapped[datetime] = mapped_column(default=db_now())
    actor: Mapped[str] = mapped_column(String(63))
    token_id: Mapped[str | None] = mapped_column(String(12))
    """The token the actor called with; none on a service without tokens and for what the service does by itself."""
    action: Mapped[str] = mapped_column(String(32))
    team: Mapped[str | None] = mapped_column(String(63))
    """The team it is about; none for changes of the whole service."""
    subject: Mapped[str] = mapped_column(String(100))
    """What was changed: the name of a team or user, or a token's id."""
    data: Mapped[dict[str, Any]] = mapped_column(default=dict)

    __table_args__ = (Index("ix_audit_events_team", "team", "id"),)
