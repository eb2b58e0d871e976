"""Programs that sign in, on both databases; time is moved in SQL, never slept."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, inspect, select, update

from tests.support.callers import ROOT, admin_token, expire, make_member, make_team, make_token
from xsam.services.db.clock import db_now
from xsam.services.db.session import Database
from xsam.services.errors import ConflictError, ForbiddenError, NotFoundError
from xsam.services.teams import device_login, service, tokens
from xsam.services.teams.device_login import (
    AskedTooSoonError,
    Codes,
    NotGrantedError,
    RefusedError,
    StillWaitingError,
    TooLateError,
)
from xsam.services.teams.models import DeviceCode, Token
from xsam.services.teams.roles import Principal, Role
from xsam.services.teams.schemas import ServiceAccountWrite


@pytest.fixture(autouse=True)
def _team(database: Database) -> None:
    admin_token(database)
    make_team(database, "red")
    make_member(database, "ann", "red", Role.MEMBER)


@pytest.fixture
def ann(database: Database) -> Principal:
    return _holder(database, make_token(database, "ann", "red", expires_in_s=3600)[0])


def _holder(database: Database, token_id: str) -> Principal:
    with database.read() as session:
        return tokens.holder(session, token_id)


def _begin(database: Database, label: str | None = "laptop") -> Codes:
    with database.unit_of_work() as session:
        return device_login.begin(session, label=label, address="127.0.0.1")


def _decide(database: Database, who: Principal, code: str, *, approves: bool = True) -> None:
    with database.unit_of_work() as session:
        device_login.decide(session, who, code, approves=approves)


def _ask(database: Database, codes: Codes) -> tuple[Token, str] | NotGrantedError:
    with database.unit_of_work() as session:
        return device_login.ask(session, codes.device_code)


def _granted(database: Database, codes: Codes) -> tuple[Token, str]:
    answer = _ask(database, codes)
    assert isinstance(answer, tuple), answer
    return answer


def _move(database: Database, **values: Any) -> None:
    with database.unit_of_work() as session:
        session.execute(update(DeviceCode).values(**values))


def test_program__gets_one_token_of_the_person_that_ends_with_theirs(database: Database, ann: Principal) -> None:
    codes = _begin(database)
    assert type(_ask(database, codes)) is StillWaitingError
    _decide(database, ann, codes.user_code.lower().replace("-", " "))
    token, text = _granted(database, codes)
    with database.read() as session:
        speaks_for = tokens.authenticate(session, text).principal
        own = session.get_one(Token, ann.token_id)
    assert (speaks_for.user, speaks_for.team, speaks_for.role) == ("ann", "red", Role.MEMBER)
    assert (token.label, token.parent_id, token.expires_at) == ("laptop", ann.token_id, own.expires_at)
    assert type(_ask(database, codes)) is NotGrantedError
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Token).where(Token.label == "laptop")) == 1


def test_codes__are_kept_as_digests_only(database: Database) -> None:
    codes = _begin(database)
    with database.read() as session:
        row = session.scalars(select(DeviceCode)).one()
        kept = " ".join(str(getattr(row, column.key)) for column in inspect(DeviceCode).columns)
    assert codes.device_code not in kept
    assert codes.user_code.replace("-", "") not in kept.replace("-", "")


def test_admins_token__does_not_outlive_the_one_they_confirmed_with(database: Database) -> None:
    admin_token(database, "ada")
    ada = _holder(database, make_token(database, "ada", "default", expires_in_s=7200)[0])
    codes = _begin(database)
    _decide(database, ada, codes.user_code)
    token, _ = _granted(database, codes)
    assert token.expires_at is not None
    assert token.expires_at - token.created_at <= timedelta(hours=2)


def test_asking_too_soon__takes_longer_from_then_on(database: Database) -> None:
    codes = _begin(database)
    assert type(_ask(database, codes)) is StillWaitingError
    slower = _ask(database, codes)
    assert type(slower) is AskedTooSoonError
    assert "every 10 s" in slower.message
    _move(database, asked_at=db_now(-6))
    assert type(_ask(database, codes)) is AskedTooSoonError
    _move(database, asked_at=db_now(-14.5))
    assert type(_ask(database, codes)) is StillWaitingError


def test_expired_code__is_neither_confirmed_nor_granted(database: Database, ann: Principal) -> None:
    confirmed, other = _begin(database), _begin(database)
    _decide(database, ann, confirmed.user_code)
    _move(database, expires_at=db_now(-0.001))
    assert type(_ask(database, confirmed)) is TooLateError
    with pytest.raises(NotFoundError, match="no program shows it"):
        _decide(database, ann, other.user_code)
    _move(database, expires_at=db_now(-4000))
    _begin(database)
    assert type(_ask(database, confirmed)) is NotGrantedError


def test_refusal__is_final(database: Database, ann: Principal) -> None:
    codes = _begin(database)
    _decide(database, ann, codes.user_code, approves=False)
    with pytest.raises(NotFoundError):
        _decide(database, ann, codes.user_code)
    assert type(_ask(database, codes)) is RefusedError


def test_confirmed_code__is_nobody_elses_to_take_over(database: Database, ann: Principal) -> None:
    make_team(database, "blue")
    make_member(database, "sam", "blue", Role.MEMBER)
    sam = _holder(database, make_token(database, "sam", "blue")[0])
    codes = _begin(database)
    _decide(database, ann, codes.user_code)
    with pytest.raises(NotFoundError):
        _decide(database, sam, codes.user_code)
    assert _granted(database, codes)[0].user_name == "ann"


@pytest.mark.parametrize("way", ["expired", "left", "viewer"])
def test_person__who_may_not_any_more_gives_nothing(database: Database, ann: Principal, way: str) -> None:
    codes = _begin(database)
    _decide(database, ann, codes.user_code)
    if way == "expired":
        expire(database, ann.token_id or "")
    elif way == "viewer":
        make_member(database, "ann", "red", Role.VIEWER)
    else:
        with database.unit_of_work() as session:
            service.remove_member(session, ROOT, "red", "ann")
    assert type(_ask(database, codes)) is RefusedError


def test_only_people_with_a_token__confirm(database: Database) -> None:
    codes = _begin(database)
    with database.unit_of_work() as session:
        service.put_service_account(session, ROOT, "nightly", ServiceAccountWrite(team="red"))
    program = _holder(database, make_token(database, "nightly", "red", expires_in_s=600)[0])
    with pytest.raises(ForbiddenError, match="only people"):
        _decide(database, program, codes.user_code)
    make_member(database, "vic", "red", Role.VIEWER)
    with pytest.raises(ForbiddenError, match="needs the role member"):
        _decide(database, _holder(database, make_token(database, "vic", "red")[0]), codes.user_code)
    with pytest.raises(ConflictError, match="asks nobody"):
        _decide(database, ROOT, codes.user_code)


@pytest.mark.parametrize("code", ["", "x", "BCDF-GHJK", "\udcff", "\0"])
def test_guess__finds_nothing(database: Database, ann: Principal, code: str) -> None:
    _begin(database)
    with database.read() as session, pytest.raises(NotFoundError):
        device_login.waiting(session, code)
    with pytest.raises(NotFoundError):
        _decide(database, ann, code)
    assert type(_ask(database, Codes(code, code))) is NotGrantedError


def test_waiting_programs__are_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_login, "MOST_WAITING", 2)
    _begin(database)
    _begin(database)
    with pytest.raises(ConflictError, match="2 programs wait"):
        _begin(database)
    _move(database, expires_at=db_now(-1))
    _begin(database)
