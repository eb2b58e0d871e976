"""Teams and users are disabled, enabled and deleted: their rows, tokens and sessions. Jobs are left to the caller.

Whoever is disabled has no valid token from then on: all are revoked, with those made with them, and stay so when the
team or the user is enabled again. Whoever is deleted is disabled, is in no list and in no team; the row stays, so that
nobody else gets the name and with it the history.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, delete, func, or_, select
from sqlalchemy.orm import Session

from xsam.services.db.clock import db_now
from xsam.services.errors import ConflictError, NotFoundError
from xsam.services.teams import audit, sessions, tokens
from xsam.services.teams.models import Membership, SignIn, Team, Token, User
from xsam.services.teams.roles import Principal, no_such_team, require_cluster_admin
from xsam.services.teams.service import DEFAULT_TEAM, check_other_admin


@dataclass(frozen=True, slots=True)
class Access:
    """What ends when a team or a user is disabled.

    Args:
        tokens: valid ones, those that were made with them included.
        num_sessions: open sessions of browsers that carry one of them.
    """

    tokens: Sequence[Token]
    num_sessions: int

    @property
    def num_tokens(self) -> int:
        """How many tokens there are."""
        return len(self.tokens)


def get_team(session: Session, name: str, *, lock: bool = False) -> Team:
    """Return a team, a deleted one as well.

    Raises:
        NotFoundError: there has never been one.
    """
    team = session.get(Team, name, with_for_update=lock)
    if team is None:
        raise no_such_team(name)
    return team


def get_user(session: Session, name: str, *, lock: bool = False) -> User:
    """Return a user, a deleted one as well.

    Raises:
        NotFoundError: there has never been one.
    """
    user = session.get(User, name, with_for_update=lock)
    if user is None:
        raise NotFoundError(f"no user {name}", field="user")
    return user


def access_of(session: Session, whose: Team | User, *, lock: bool = False) -> Access:
    """Return what would end if a team or a user were disabled now."""
    is_valid = (Token.revoked_at.is_(None), or_(Token.expires_at.is_(None), Token.expires_at > db_now()))
    query = select(Token).where(_speaks_for(whose), *is_valid)
    found = tokens.with_made(session, session.scalars(query.with_for_update() if lock else query), lock=lock)
    is_open = (SignIn.expires_at > db_now(), SignIn.last_used_at > db_now(-sessions.IDLE_S))
    carried = SignIn.token_id.in_([token.id for token in found])
    num_sessions = session.scalar(select(func.count()).select_from(SignIn).where(carried, *is_open)) or 0
    return Access(found, num_sessions)


def disable_team(session: Session, principal: Principal, name: str) -> Access:
    """Let a team take no new jobs and nobody speak for it; doing it again changes nothing. Returns what has ended.

    Raises:
        ForbiddenError: the caller is no cluster admin.
        NotFoundError: no such team.
        ConflictError: it is the caller's own, or the one that the service can't be without.
    """
    require_cluster_admin(principal)
    team = get_team(session, name, lock=True)
    _check_can_go(principal, team)
    return _disable(session, principal, team)


def disable_user(session: Session, principal: Principal, name: str) -> Access:
    """Let no token speak for a user; doing it again changes nothing. Returns what has ended.

    Raises:
        ForbiddenError: the caller is no cluster admin.
        NotFoundError: no such user.
        ConflictError: it is the caller, or the only admin of the service.
    """
    require_cluster_admin(principal)
    user = _lock_user(session, principal, name)
    return _disable(session, principal, user)


def enable(session: Session, principal: Principal, whose: Team | User) -> None:
    """Let a disabled or deleted team or user be as before, without their tokens; a deleted one without members.

    Raises:
        ForbiddenError: the caller is no cluster admin.
    """
    require_cluster_admin(principal)
    if whose.disabled_at is None:
        return
    whose.disabled_at = whose.deleted_at = None
    session.flush()
    _note(session, principal, "enabled", whose)


def delete_team(session: Session, principal: Principal, name: str) -> None:
    """Disable a team, take its members out and show it in no list; doing it again changes nothing.

    The caller has made sure that it has no jobs to come.

    Raises:
        ForbiddenError: the caller is no cluster admin.
        NotFoundError: no such team.
        ConflictError: it is the caller's own, or the one that the service can't be without.
    """
    disable_team(session, principal, name)
    _delete(session, principal, get_team(session, name))


def delete_user(session: Session, principal: Principal, name: str) -> None:
    """Disable a user, take them out of all teams and show them in no list; doing it again changes nothing.

    Raises:
        ForbiddenError: the caller is no cluster admin.
        NotFoundError: no such user.
        ConflictError: it is the caller, or the only admin of the service.
    """
    disable_user(session, principal, name)
    _delete(session, principal, get_user(session, name))


def is_member(whose: Team | User) -> ColumnElement[bool]:
    """Return the condition for the memberships of a team or a user."""
    return Membership.team_name == whose.name if isinstance(whose, Team) else Membership.user_name == whose.name


def _lock_user(session: Session, principal: Principal, name: str) -> User:
    if name == principal.user:
        raise ConflictError(f"{name} is you; another admin of the service can do this", field="user")
    check_other_admin(session, name, field="user")
    return get_user(session, name, lock=True)


def _check_can_go(principal: Principal, team: Team) -> None:
    if team.name == DEFAULT_TEAM:
        message = f"team {DEFAULT_TEAM} is the one that admins of the service are let into; it has to stay"
        raise ConflictError(message, field="team")
    if team.name == principal.team:
        raise ConflictError(f"your token speaks for team {team.name}; use one of another team for this", field="team")


def _disable(session: Session, principal: Principal, whose: Team | User) -> Access:
    ended = access_of(session, whose, lock=True)
    token_ids = [token.id for token in tokens.end(session, principal, ended.tokens)]
    session.execute(delete(SignIn).where(SignIn.token_id.in_(token_ids)))
    if whose.disabled_at is None:
        whose.disabled_at = session.execute(select(db_now())).scalar_one()
        session.flush()
        _note(session, principal, "disabled", whose, num_tokens=ended.num_tokens, num_sessions=ended.num_sessions)
    return ended


def _delete(session: Session, principal: Principal, whose: Team | User) -> None:
    if whose.deleted_at is not None:
        return
    members = session.execute(delete(Membership).where(is_member(whose)).returning(Membership.user_name)).all()
    whose.deleted_at = session.execute(select(db_now())).scalar_one()
    session.flush()
    _note(session, principal, "deleted", whose, num_memberships=len(members))


def _note(session: Session, principal: Principal, done: str, whose: Team | User, **data: int) -> None:
    is_team = isinstance(whose, Team)
    action = f"{'team' if is_team else 'user'}_{done}"
    audit.record(session, principal, action, whose.name, team=whose.name if is_team else None, **data)


def _speaks_for(whose: Team | User) -> ColumnElement[bool]:
    return Token.team_name == whose.name if isinstance(whose, Team) else Token.user_name == whose.name
