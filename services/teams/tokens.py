"""Tokens: who a secret speaks for, and how tokens are made, listed and revoked."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, or_, select, update
from sqlalchemy.orm import Session

from xsam.services import paging
from xsam.services.db.clock import db_now
from xsam.services.errors import ForbiddenError, InvalidRequestError, NotFoundError, UnauthenticatedError
from xsam.services.teams import audit, token_text
from xsam.services.teams.models import Membership, Team, Token, User
from xsam.services.teams.roles import Principal, Role, require_role
from xsam.services.teams.schemas import TokenCreate

TOUCH_EVERY_S = 60.0
"""`last_used_at` is written at most so often per token: reading must not cost a write each time."""


@dataclass(frozen=True, slots=True)
class Authenticated:
    """The caller that a token names."""

    principal: Principal
    needs_touch: bool
    """Whether `touch` would note the use of the token."""


def authenticate(session: Session, text: str) -> Authenticated:
    """Return who a token speaks for, with the role they have now.

    Raises:
        UnauthenticatedError: the token is unknown, expired or revoked, or its user has left the team.
    """
    if not token_text.is_well_formed(text):
        raise UnauthenticatedError("the token is not one of this service's")
    return _holder(session, Token.digest == token_text.digest(text))


def holder(session: Session, token_id: str) -> Principal:
    """Return who a token speaks for that was valid once, with the role they have now.

    Raises:
        UnauthenticatedError: it is expired or revoked, or its user has left the team.
    """
    return _holder(session, Token.id == token_id).principal


def is_valid(session: Session, token_id: str) -> bool:
    """Return whether a token that was valid still is; for answers that go on for hours."""
    try:
        _holder(session, Token.id == token_id)
    except UnauthenticatedError:
        return False
    return True


def touch(session: Session, token_id: str) -> None:
    """Note that a token is in use, unless somebody noted it within the last minute."""
    is_stale = or_(Token.last_used_at.is_(None), Token.last_used_at < db_now(-TOUCH_EVERY_S))
    statement = update(Token).where(Token.id == token_id, is_stale).values(last_used_at=db_now())
    session.execute(statement.execution_options(synchronize_session=False))


def create(session: Session, principal: Principal, wanted: TokenCreate) -> tuple[Token, str]:
    """Make a token and return it with its text, which nobody can read again.

    Members make tokens for themselves, and none that outlives the token they call with: a secret that leaked ends when
    it was to end. Team admins make tokens for the members of their team, cluster admins for everybody.

    Raises:
        ForbiddenError: the caller may not make this token.
        NotFoundError: no such team, or it is not the caller's to see.
        InvalidRequestError: the user is not a member of the team, one of both is disabled, or a service account's token
            would not end by itself.
    """
    require_role(principal, Role.MEMBER)
    user, team = wanted.user or principal.user, wanted.team or principal.team
    if user != principal.user:
        require_role(principal, Role.ADMIN)
    row = session.get(Team, team) if principal.sees(team) else None
    if row is None or row.deleted_at is not None:
        raise NotFoundError(f"no team {team}", field="team")
    if row.disabled_at is not None:
        raise InvalidRequestError(f"team is {team!r}, which is disabled; enable it first", field="team")
    _check_holder(session, principal, user, team)
    _check_ends(session, user, wanted)
    text = token_text.new_token()
    token = Token(
        label=wanted.label,
        user_name=user,
        team_name=team,
        prefix=token_text.prefix(text),
        digest=token_text.digest(text),
        created_by=principal.user,
        parent_id=principal.token_id,
        expires_at=None if wanted.expires_in_s is None else db_now(wanted.expires_in_s),
    )
    session.add(token)
    session.flush()
    session.refresh(token)
    _limit_lifetime(session, principal, token, is_asked_for="expires_in_s" in wanted.model_fields_set)
    expires_at = None if token.expires_at is None else token.expires_at.isoformat()
    audit.record(session, principal, "token_created", token.id, team=team, user=user, expires_at=expires_at)
    return token, text


def list_tokens(
    session: Session, principal: Principal, *, cursor: str | None = None, limit: int = 50
) -> tuple[Sequence[Token], str | None]:
    """Return a page of tokens, newest first, and the cursor of the next page (None on the last).

    Cluster admins see all, team admins their team's, everybody else their own in their team.

    Raises:
        InvalidRequestError: the cursor is not one of ours.
    """
    rows, next_cursor = paging.newest_first(session, _manageable(principal), Token, cursor=cursor, limit=limit)
    return [row[0] for row in rows], next_cursor


def revoke(session: Session, principal: Principal, token_id: str) -> None:
    """End a token now, and every token that was made with it; doing it again changes nothing.

    Raises:
        ForbiddenError: the caller only reads.
        NotFoundError: no such token, or it is not the caller's to manage.
    """
    require_role(principal, Role.MEMBER)
    token = session.scalar(_manageable(principal).where(Token.id == token_id).with_for_update())
    if token is None:
        raise NotFoundError(f"no token {token_id}", field="token_id")
    if token.revoked_at is not None:
        return
    end(session, principal, [token])


def end(session: Session, principal: Principal, wanted: Iterable[Token]) -> Sequence[Token]:
    """Revoke valid tokens and those that were made with them, with an event for each; returns all of them."""
    ended = with_made(session, wanted, lock=True)
    for token in ended:
        audit.record(session, principal, "token_revoked", token.id, team=token.team_name, user=token.user_name)
    session.execute(update(Token).where(Token.id.in_([token.id for token in ended])).values(revoked_at=db_now()))
    return ended


def with_made(session: Session, wanted: Iterable[Token], *, lock: bool) -> Sequence[Token]:
    """Return tokens and all that were made with them, directly or not, and are not revoked: they end together."""
    found = {token.id: token for token in wanted}
    latest = list(found)
    while latest:
        made = select(Token).where(Token.parent_id.in_(latest), Token.revoked_at.is_(None))
        rows = session.scalars(made.with_for_update() if lock else made)
        fresh = {token.id: token for token in rows if token.id not in found}
        found |= fresh
        latest = list(fresh)
    return list(found.values())


def _holder(session: Session, is_wanted: ColumnElement[bool]) -> Authenticated:
    is_stale = or_(Token.last_used_at.is_(None), Token.last_used_at < db_now(-TOUCH_EVERY_S))
    query = (
        select(Token, User.is_admin, Membership.role, Token.expires_at <= db_now(), is_stale)
        .add_columns(User.disabled_at, Team.disabled_at)
        .join(User, User.name == Token.user_name)
        .join(Team, Team.name == Token.team_name)
        .outerjoin(Membership, (Membership.user_name == User.name) & (Membership.team_name == Token.team_name))
        .where(is_wanted)
    )
    row = session.execute(query).one_or_none()
    if row is None:
        raise UnauthenticatedError("the token is not one of this service's")
    token, is_admin, _, is_expired, needs_touch, user_disabled_at, team_disabled_at = row
    role: str | None = row[2]  # of an outer join, so it may be missing
    if token.revoked_at is not None:
        raise UnauthenticatedError(f"the token was revoked at {token.revoked_at:%Y-%m-%d %H:%M:%S} UTC")
    if is_expired:
        raise UnauthenticatedError(f"the token expired at {token.expires_at:%Y-%m-%d %H:%M:%S} UTC")
    for what, disabled_at in (
        (f"user {token.user_name}", user_disabled_at),
        (f"team {token.team_name}", team_disabled_at),
    ):
        if disabled_at is not None:
            raise UnauthenticatedError(f"{what} was disabled at {disabled_at:%Y-%m-%d %H:%M:%S} UTC")
    if role is None and not is_admin:
        raise UnauthenticatedError(f"{token.user_name} is no longer a member of team {token.team_name}")
    principal = Principal(
        user=token.user_name,
        team=token.team_name,
        role=Role(role) if role is not None and not is_admin else Role.ADMIN,
        is_admin=is_admin,
        token_id=token.id,
    )
    return Authenticated(principal, needs_touch)


def _manageable(principal: Principal) -> Select[Token]:
    query = select(Token)
    if principal.is_admin:
        return query
    query = query.where(Token.team_name == principal.team)
    return query if principal.role is Role.ADMIN else query.where(Token.user_name == principal.user)


def _check_holder(session: Session, principal: Principal, name: str, team: str) -> None:
    user = session.get(User, name)
    if user is not None and user.disabled_at is not None:
        raise InvalidRequestError(f"user is {name!r}, who is disabled; enable them first", field="user")
    if user is not None and user.is_admin:
        # Otherwise whoever manages one team could speak as an admin of all of them.
        if not principal.is_admin:
            raise ForbiddenError(f"{name} is an admin of this service; only another one makes tokens for them")
        return
    if user is None or session.get(Membership, (team, name)) is None:
        message = f"user is {name!r}, who is no member of team {team}; allowed are its members"
        raise InvalidRequestError(message, field="user")


def _check_ends(session: Session, name: str, wanted: TokenCreate) -> None:
    user = session.get(User, name)
    if user is not None and user.is_service and wanted.expires_in_s is None:
        # Nobody leaves with whom it would end: a person's departure does not touch it.
        message = f"expires_in_s is null; a token of {name}, a service account, has to end: allowed are seconds"
        raise InvalidRequestError(message, field="expires_in_s")


def _limit_lifetime(session: Session, principal: Principal, token: Token, *, is_asked_for: bool) -> None:
    if principal.may(Role.ADMIN) or principal.token_id is None:
        return
    limit = session.get_one(Token, principal.token_id).expires_at
    if limit is None or (token.expires_at is not None and token.expires_at <= limit):
        return
    if is_asked_for:
        raise ForbiddenError(
            f"the token would outlive the one you call with, which expires at {limit:%Y-%m-%d %H:%M:%S} UTC; "
            "ask for a shorter life, or ask an admin of your team for the token",
            field="expires_in_s",
        )
    token.expires_at = limit
    session.flush()
