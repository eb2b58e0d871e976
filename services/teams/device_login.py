"""Sign-in of programs by a device flow in the shape of RFC 8628: a program waits, a person confirms it at the page.

The program holds a long code and asks with it; the person reads a short one there and confirms it where they are
signed in, however they did that. The token is made when the program asks next, with the person's own one: it speaks for
the same team, ends no later, and ends with it.
"""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.orm import Session

from xsam.services.db.clock import db_now
from xsam.services.errors import ConflictError, ForbiddenError, NotFoundError, ServiceError, UnauthenticatedError
from xsam.services.teams import audit, tokens
from xsam.services.teams.models import DeviceCode, Token, User
from xsam.services.teams.roles import Principal, Role, require_role
from xsam.services.teams.schemas import TokenCreate

EXPIRES_S = 600.0
"""How long a person has."""
INTERVAL_S = 5.0
"""Between two questions of a program; as much is added each time it asks sooner (RFC 8628, 3.5)."""
MOST_WAITING = 1000
"""Programs that wait at once: with so many, a guessed short code is one of them once in 25 million tries."""
_LEEWAY_S = 1.0
"""Questions sent on time may arrive so much closer to each other."""
_FORGOTTEN_AFTER_S = 3600.0
"""Until then a program is told that its code has expired, afterwards that there is none."""
_SECRET_BYTES = 32
_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
"""Without vowels, so that no code is a word, and without digits, which look like letters (RFC 8628, 6.1)."""
_NUM_LETTERS = 8


class NotGrantedError(ServiceError):
    """There is no token for this code: it is unknown, or was used."""

    code = "invalid_grant"


class StillWaitingError(NotGrantedError):
    """Nobody has confirmed the program yet."""

    code = "authorization_pending"


class AskedTooSoonError(NotGrantedError):
    """The program asks more often than it was told to."""

    code = "slow_down"


class RefusedError(NotGrantedError):
    """The person refused, or may not have a token any more."""

    code = "access_denied"


class TooLateError(NotGrantedError):
    """Nobody confirmed the program in time."""

    code = "expired_token"


@dataclass(frozen=True, slots=True)
class Codes:
    """What a new program gets; neither can be read again."""

    device_code: str
    user_code: str


def begin(session: Session, *, label: str | None, address: str) -> Codes:
    """Let a program wait for a person, and return its codes.

    Args:
        session: open in a unit of work.
        label: what it calls itself.
        address: where it calls from.

    Raises:
        ConflictError: too many wait already.
    """
    session.execute(delete(DeviceCode).where(DeviceCode.expires_at <= db_now(-_FORGOTTEN_AFTER_S)))
    num_waiting = session.scalar(select(func.count()).select_from(DeviceCode).where(*_is_waiting())) or 0
    if num_waiting >= MOST_WAITING:
        raise ConflictError(f"{MOST_WAITING} programs wait to be confirmed already; try again in some minutes")
    codes = Codes(secrets.token_urlsafe(_SECRET_BYTES), _new_user_code())
    row = DeviceCode(
        digest=_digest(codes.device_code),
        user_code_digest=_digest(_plain(codes.user_code)),
        label=label,
        address=address[:64],
        expires_at=db_now(EXPIRES_S),
        interval_s=INTERVAL_S,
    )
    session.add(row)
    session.flush()
    return codes


def waiting(session: Session, user_code: str) -> DeviceCode:
    """Return the program that shows a short code and waits.

    Args:
        session: open for reading.
        user_code: as a person typed it: case, hyphens and spaces do not matter.

    Raises:
        NotFoundError: none does, or somebody has decided, or its time is over; which of them is not said.
    """
    row = session.scalar(select(DeviceCode).where(_shows(user_code), *_is_waiting()))
    if row is None:
        raise _no_such_code(user_code)
    return row


def decide(session: Session, principal: Principal, user_code: str, *, approves: bool) -> DeviceCode:
    """Confirm or refuse the program that shows a short code, once and for all.

    Raises:
        ForbiddenError: the caller may make no tokens, or is a service account.
        ConflictError: the service asks nobody for a token.
        NotFoundError: no program that waits shows this code.
    """
    require_role(principal, Role.MEMBER)
    if principal.token_id is None:
        raise ConflictError("this service asks nobody for a token, so there is no program to confirm")
    if session.get_one(User, principal.user).is_service:
        raise ForbiddenError(f"{principal.user} is a service account; only people confirm programs")
    values = {"decided_at": db_now(), "approved_by": principal.token_id if approves else None}
    statement = update(DeviceCode).where(_shows(user_code), *_is_waiting()).values(**values)
    row_id = session.scalar(statement.returning(DeviceCode.id))
    if row_id is None:
        raise _no_such_code(user_code)
    row = session.get_one(DeviceCode, row_id, populate_existing=True)
    action = "device_approved" if approves else "device_refused"
    audit.record(session, principal, action, row.id, team=principal.team, label=row.label, address=row.address)
    return row


def ask(session: Session, device_code: str) -> tuple[Token, str] | NotGrantedError:
    """Return the program's token and its text, or why there is none yet or ever.

    The reason is returned, not raised, since the question itself is noted and has to be committed. However often a
    program asks, and from wherever, one question alone gets the token.

    Args:
        session: open in a unit of work.
        device_code: as `begin` made it.
    """
    is_too_soon = DeviceCode.asked_at > db_now(_LEEWAY_S - DeviceCode.interval_s)
    query = select(DeviceCode, DeviceCode.expires_at <= db_now(), is_too_soon)
    found = session.execute(query.where(DeviceCode.digest == _digest(device_code)).with_for_update(of=DeviceCode))
    row, is_over, asks_too_soon = found.one_or_none() or (None, False, False)
    if row is None or row.used_at is not None:
        return NotGrantedError("no program waits with this device_code, or it has its token", field="device_code")
    if is_over:
        return TooLateError("nobody confirmed this program in time; begin again", field="device_code")
    if row.decided_at is not None:
        return _granted(session, row)
    row.asked_at = now(session)
    if asks_too_soon:
        row.interval_s += INTERVAL_S
        return AskedTooSoonError(f"the program asks too often; from now on it may every {row.interval_s:g} s")
    return StillWaitingError("nobody has confirmed this program yet")


def now(session: Session) -> datetime:
    """Return the present instant of the database's clock, which lifetimes are measured by."""
    return session.execute(select(db_now())).scalar_one()


def _granted(session: Session, row: DeviceCode) -> tuple[Token, str] | NotGrantedError:
    if row.approved_by is None:
        return RefusedError("the program was refused at the page")
    use = update(DeviceCode).where(DeviceCode.id == row.id, DeviceCode.used_at.is_(None)).values(used_at=db_now())
    if session.scalar(use.returning(DeviceCode.id)) is None:  # SQLite locks no row
        return NotGrantedError("the program has its token", field="device_code")
    try:
        principal = tokens.holder(session, row.approved_by)
        require_role(principal, Role.MEMBER)
    except (UnauthenticatedError, ForbiddenError) as e:
        return RefusedError(f"whoever confirmed this program may not any more: {e.message}")
    token, text = tokens.create(session, principal, TokenCreate(label=row.label or "xsam login"))
    limit = session.get_one(Token, row.approved_by).expires_at
    if limit is not None and token.expires_at is not None:  # an admin's new token could live on
        token.expires_at = min(limit, token.expires_at)
        session.flush()
    return token, text


def _is_waiting() -> tuple[ColumnElement[bool], ...]:
    return DeviceCode.decided_at.is_(None), DeviceCode.expires_at > db_now()


def _shows(user_code: str) -> ColumnElement[bool]:
    return DeviceCode.user_code_digest == _digest(_plain(user_code))


def _no_such_code(user_code: str) -> NotFoundError:
    message = f"code is {user_code[:20]!r}; no program shows it, or it was confirmed, refused or has expired"
    return NotFoundError(message, field="code")


def _new_user_code() -> str:
    letters = "".join(secrets.choice(_LETTERS) for _ in range(_NUM_LETTERS))
    return f"{letters[:4]}-{letters[4:]}"


def _plain(user_code: str) -> str:
    return "".join(user_code.split()).replace("-", "").upper()


def _digest(code: str) -> str:
    """Return what is stored of a code. The short one could be found from it, in longer than it is worth anything."""
    return hashlib.sha256(code.encode("utf-8", "surrogatepass")).hexdigest()
