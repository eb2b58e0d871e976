"""Sessions of browsers: who a session's secret speaks for, and how sessions begin and end.

A session is begun with a token and carries it, so the token itself need not stay in the browser. Whatever ends the
token, or takes its user's role, holds for the session from the next request on.
"""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import ColumnElement, Select, delete, or_, select, update
from sqlalchemy.orm import Session

from xsam.services.db.clock import db_now
from xsam.services.errors import ConflictError, NotFoundError, UnauthenticatedError
from xsam.services.teams import audit, tokens
from xsam.services.teams.models import SignIn, Token
from xsam.services.teams.roles import Principal

IDLE_S = 12 * 3600.0
"""A session that is not used so long has ended."""
LONGEST_S = 7 * 86_400.0
"""However much it is used; then the token is asked for again."""
TOUCH_EVERY_S = 60.0
MOST_PER_TOKEN = 50
"""Open sessions; one more ends the one that has not been used for longest."""
_SECRET_BYTES = 32
_USER_AGENT_CHARS = 200


@dataclass(frozen=True, slots=True)
class SignedIn:
    """The caller that a session names."""

    principal: Principal
    needs_touch: bool
    """Whether `touch` would note the use of the session."""


def begin(session: Session, principal: Principal, *, user_agent: str | None = None) -> tuple[SignIn, str]:
    """Begin a session for the caller's token and return it with its secret, which nobody can read again.

    Raises:
        ConflictError: the caller has no token, because the service asks for none.
    """
    if principal.token_id is None:
        raise ConflictError("this service asks nobody for a token, so there is nothing to sign in to")
    session.execute(delete(SignIn).where(or_(SignIn.expires_at <= db_now(), SignIn.last_used_at <= db_now(-IDLE_S))))
    of_token = select(SignIn.id).where(SignIn.token_id == principal.token_id).order_by(SignIn.last_used_at.desc())
    surplus = session.scalars(of_token.offset(MOST_PER_TOKEN - 1)).all()
    session.execute(delete(SignIn).where(SignIn.id.in_(surplus)))
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    row = SignIn(
        digest=_digest(secret),
        token_id=principal.token_id,
        user_agent=None if user_agent is None else user_agent[:_USER_AGENT_CHARS],
        expires_at=db_now(LONGEST_S),
    )
    session.add(row)
    session.flush()
    session.refresh(row)
    audit.record(session, principal, "signed_in", row.id, team=principal.team)
    return row, secret


def authenticate(session: Session, secret: str) -> SignedIn:
    """Return who a session's secret speaks for, with the role they have now.

    Raises:
        UnauthenticatedError: no such session, it has ended, or its token has.
    """
    return _signed_in(session, SignIn.digest == _digest(secret))


def is_valid(session: Session, session_id: str) -> bool:
    """Return whether a session that was open still is; for answers that go on for hours."""
    try:
        _signed_in(session, SignIn.id == session_id)
    except UnauthenticatedError:
        return False
    return True


def touch(session: Session, session_id: str) -> None:
    """Note that a session is in use, unless somebody noted it within the last minute."""
    is_stale = SignIn.last_used_at < db_now(-TOUCH_EVERY_S)
    session.execute(update(SignIn).where(SignIn.id == session_id, is_stale).values(last_used_at=db_now()))


def list_own(session: Session, principal: Principal) -> Sequence[SignIn]:
    """Return the caller's open sessions, with whichever of their tokens, the one last used first."""
    return session.scalars(_own(principal).order_by(SignIn.last_used_at.desc(), SignIn.id)).all()


def end(session: Session, principal: Principal, session_id: str) -> None:
    """End one of the caller's sessions.

    Raises:
        NotFoundError: no such session, or it is not the caller's.
    """
    row = session.scalar(_own(principal).where(SignIn.id == session_id))
    if row is None:
        raise NotFoundError(f"no session {session_id}", field="session_id")
    _end(session, principal, [row])


def end_all(session: Session, principal: Principal) -> int:
    """End all of the caller's sessions, the present one included, and return how many there were."""
    rows = session.scalars(_own(principal)).all()
    _end(session, principal, rows)
    return len(rows)


def _end(session: Session, principal: Principal, rows: Sequence[SignIn]) -> None:
    session.execute(delete(SignIn).where(SignIn.id.in_([row.id for row in rows])))
    for row in rows:
        audit.record(session, principal, "signed_out", row.id, team=principal.team)


def _signed_in(session: Session, is_wanted: ColumnElement[bool]) -> SignedIn:
    is_over = or_(SignIn.expires_at <= db_now(), SignIn.last_used_at <= db_now(-IDLE_S))
    is_stale = SignIn.last_used_at < db_now(-TOUCH_EVERY_S)
    row = session.execute(select(SignIn, is_over, is_stale).where(is_wanted)).one_or_none()
    if row is None or row[1]:
        raise UnauthenticatedError("the session has ended; sign in again")
    principal = tokens.holder(session, row[0].token_id)
    return SignedIn(replace(principal, session_id=row[0].id), row[2])


def _own(principal: Principal) -> Select[SignIn]:
    query = select(SignIn).join(Token, Token.id == SignIn.token_id).where(Token.user_name == principal.user)
    return query.where(SignIn.expires_at > db_now(), SignIn.last_used_at > db_now(-IDLE_S))


def _digest(secret: str) -> str:
    """Return what is stored of a secret; as of tokens, see `token_text.digest`."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
