"""Sessions of browsers on both databases; time is moved in SQL, never slept."""

from typing import Any

import pytest
from sqlalchemy import inspect, update

from tests.support.callers import ROOT, admin_token, begin_session, expire, make_member, make_team, make_token
from xsam.services.db.clock import db_now
from xsam.services.db.session import Database
from xsam.services.errors import ConflictError, NotFoundError, UnauthenticatedError
from xsam.services.teams import sessions, tokens
from xsam.services.teams.models import SignIn
from xsam.services.teams.roles import Principal, Role
from xsam.services.teams.service import DEFAULT_TEAM


@pytest.fixture(autouse=True)
def _team(database: Database) -> None:
    admin_token(database)
    make_team(database, "red")
    make_member(database, "ann", "red", Role.MEMBER)
    make_member(database, "bob", "red", Role.MEMBER)


def _authenticate(database: Database, secret: str) -> Principal:
    with database.read() as session:
        return sessions.authenticate(session, secret).principal


def _move(database: Database, session_id: str, **values: Any) -> None:
    with database.unit_of_work() as session:
        session.execute(update(SignIn).where(SignIn.id == session_id).values(**values))


def _own(database: Database, principal: Principal) -> list[str]:
    with database.read() as session:
        return [row.id for row in sessions.list_own(session, principal)]


def test_session__speaks_for_its_token_with_the_present_role(database: Database) -> None:
    token_id, _ = make_token(database, "ann", "red")
    session_id, secret = begin_session(database, token_id)
    expected = Principal("ann", "red", role=Role.MEMBER, token_id=token_id, session_id=session_id)
    assert _authenticate(database, secret) == expected
    make_member(database, "ann", "red", Role.VIEWER)
    assert _authenticate(database, secret).role is Role.VIEWER


def test_session__keeps_no_secret(database: Database) -> None:
    session_id, secret = begin_session(database, make_token(database, "ann", "red")[0], user_agent="x" * 999)
    with database.read() as session:
        row = session.get_one(SignIn, session_id)
        values = [getattr(row, column.key) for column in inspect(SignIn).columns]
        assert not any(secret in str(value) for value in values)
        assert len(row.user_agent or "") == 200


@pytest.mark.parametrize("secret", ["", "x", "\udcff", "\0", "a" * 43])
def test_authenticate__refuses_what_it_never_made(database: Database, secret: str) -> None:
    with pytest.raises(UnauthenticatedError, match="sign in again"):
        _authenticate(database, secret)


def test_session__ends_with_its_token(database: Database) -> None:
    revoked, expired = make_token(database, "ann", "red")[0], make_token(database, "ann", "red", expires_in_s=60)[0]
    secrets = [begin_session(database, token_id)[1] for token_id in (revoked, expired)]
    with database.unit_of_work() as session:
        tokens.revoke(session, ROOT, revoked)
    expire(database, expired)
    for secret in secrets:
        with pytest.raises(UnauthenticatedError, match="the token"):
            _authenticate(database, secret)


@pytest.mark.parametrize(
    "moved",
    [
        {"last_used_at": db_now(-sessions.IDLE_S - 1)},
        {"expires_at": db_now(-1)},
    ],
    ids=["idle", "a week old"],
)
def test_session__ends_by_itself(database: Database, moved: dict[str, Any]) -> None:
    token_id, _ = make_token(database, "ann", "red")
    session_id, secret = begin_session(database, token_id)
    _move(database, session_id, **moved)
    with pytest.raises(UnauthenticatedError, match="sign in again"):
        _authenticate(database, secret)
    with database.read() as session:
        assert not sessions.is_valid(session, session_id)
    begin_session(database, token_id)  # which clears away those that are over
    with database.read() as session:
        assert session.get(SignIn, session_id) is None


def test_touch__keeps_a_session_open_at_most_once_a_minute(database: Database) -> None:
    session_id, secret = begin_session(database, make_token(database, "ann", "red")[0])
    with database.read() as session:
        assert not sessions.authenticate(session, secret).needs_touch
    _move(database, session_id, last_used_at=db_now(-sessions.IDLE_S + 60))
    with database.read() as session:
        assert sessions.authenticate(session, secret).needs_touch
    with database.unit_of_work() as session:
        sessions.touch(session, session_id)
    with database.read() as session:
        assert not sessions.authenticate(session, secret).needs_touch


def test_end__is_for_one_s_own(database: Database) -> None:
    ann, bob = (Principal(user, "red", role=Role.MEMBER) for user in ("ann", "bob"))
    first, first_secret = begin_session(database, make_token(database, "ann", "red")[0])
    second, _ = begin_session(database, make_token(database, "ann", "red")[0])
    third, _ = begin_session(database, make_token(database, "bob", "red")[0])
    assert set(_own(database, ann)) == {first, second}
    with database.unit_of_work() as session, pytest.raises(NotFoundError):
        sessions.end(session, bob, first)
    with database.unit_of_work() as session:
        sessions.end(session, ann, first)
    with pytest.raises(UnauthenticatedError):
        _authenticate(database, first_secret)
    with database.unit_of_work() as session:
        assert sessions.end_all(session, ann) == 1
    assert (_own(database, ann), _own(database, bob)) == ([], [third])


def test_begin__needs_a_token(database: Database) -> None:
    nobody = Principal("ann", DEFAULT_TEAM, role=Role.ADMIN, is_admin=True)
    with database.unit_of_work() as session, pytest.raises(ConflictError, match="nothing to sign in to"):
        sessions.begin(session, nobody)


def test_begin__ends_the_least_used_of_too_many(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MOST_PER_TOKEN", 2)
    token_id, _ = make_token(database, "ann", "red")
    old, _ = begin_session(database, token_id)
    _move(database, old, last_used_at=db_now(-60))
    newer = {begin_session(database, token_id)[0] for _ in range(2)}
    assert set(_own(database, Principal("ann", "red"))) == newer
