"""The first way in: what a new database needs before anybody can call, and the way back for a locked-out operator."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from xsam.services.db.upsert import upsert
from xsam.services.teams import service, tokens
from xsam.services.teams.models import Team, User
from xsam.services.teams.roles import SYSTEM, Principal, Role
from xsam.services.teams.schemas import TokenCreate

FIRST_ADMIN = "admin"
_SERVICE = Principal(user=SYSTEM, team=service.DEFAULT_TEAM, role=Role.ADMIN, is_admin=True)


def first_admin_token(session: Session) -> str | None:
    """Make the first admin and a token for them, and return its text; None where there is an admin already.

    Of several processes that start at once on an empty database, one makes it.
    """
    service.ensure_team(session, service.DEFAULT_TEAM)
    session.get_one(Team, service.DEFAULT_TEAM, with_for_update=True)  # the others wait here, then find the admin
    if session.scalar(select(User.name).where(User.is_admin, User.disabled_at.is_(None)).limit(1)) is not None:
        return None
    return admin_token(session, FIRST_ADMIN, label="first admin")


def admin_token(session: Session, user: str, *, label: str) -> str:
    """Make `user` an admin of the service and return a token for them that does not expire.

    It asks nobody, and enables a user who was disabled or deleted: only for whoever can open the database anyway.
    """
    service.ensure_team(session, service.DEFAULT_TEAM)
    if not session.scalar(select(User.is_admin).where(User.name == user)):
        service.end_lesser_tokens(session, _SERVICE, user)
    admin = {"name": user, "is_admin": True, "is_service": False, "disabled_at": None, "deleted_at": None}
    upsert(session, User, [admin], keys=("name",))
    wanted = TokenCreate(user=user, team=service.DEFAULT_TEAM, label=label, expires_in_s=None)
    _, text = tokens.create(session, _SERVICE, wanted)
    return text
