"""Tokens on both databases; time is moved in SQL, never slept."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import inspect, update

from tests.support.callers import ROOT, admin_token, make_member, make_team, make_token, read_token
from xsam.services.db.clock import db_now
from xsam.services.db.session import Database
from xsam.services.errors import ForbiddenError, InvalidRequestError, NotFoundError, UnauthenticatedError
from xsam.services.teams import audit, service, token_text, tokens
from xsam.services.teams.models import Token
from xsam.services.teams.roles import Principal, Role
from xsam.services.teams.schemas import TokenCreate


@pytest.fixture(autouse=True)
def _teams(database: Database) -> None:
    admin_token(database)
    for team in ("red", "blue"):
        make_team(database, team)
    make_member(database, "ann", "red", Role.MEMBER)
    make_member(database, "bob", "red", Role.MEMBER)


def _authenticate(database: Database, text: str) -> Principal:
    with database.read() as session:
        return tokens.authenticate(session, text).principal


def _create(database: Database, principal: Principal, **wanted: Any) -> tuple[Token, str]:
    with database.unit_of_work() as session:
        return tokens.create(session, principal, TokenCreate(**wanted))


def _move(database: Database, token_id: str, **values: Any) -> None:
    with database.unit_of_work() as session:
        session.execute(update(Token).where(Token.id == token_id).values(**values))


def test_authenticate__names_the_user_the_team_and_the_present_role(database: Database) -> None:
    token_id, text = make_token(database, "ann", "red")
    assert _authenticate(database, text) == Principal("ann", "red", role=Role.MEMBER, token_id=token_id)
    make_member(database, "ann", "red", Role.VIEWER)
    assert _authenticate(database, text).role is Role.VIEWER


def test_authenticate__knows_an_admin_of_the_service_in_any_team(database: Database) -> None:
    _, text = make_token(database, "root", "blue")
    principal = _authenticate(database, text)
    assert (principal.is_admin, principal.role, principal.team) == (True, Role.ADMIN, "blue")


@pytest.mark.parametrize("text", [pytest.param(token_text.new_token(), id="well formed"), "hunter2", "", "xsam_\x00"])
def test_authenticate__refuses_what_it_never_made(database: Database, text: str) -> None:
    with pytest.raises(UnauthenticatedError, match="not one of this service's"):
        _authenticate(database, text)


def test_authenticate__refuses_an_expired_token(database: Database) -> None:
    token_id, text = make_token(database, "ann", "red", expires_in_s=60)
    assert _authenticate(database, text).user == "ann"
    _move(database, token_id, expires_at=db_now(-0.001))
    with pytest.raises(UnauthenticatedError, match="expired at"):
        _authenticate(database, text)


def test_authenticate__refuses_a_revoked_token(database: Database) -> None:
    token_id, text = make_token(database, "ann", "red")
    with database.unit_of_work() as session:
        tokens.revoke(session, ROOT, token_id)
    with pytest.raises(UnauthenticatedError, match="revoked at"):
        _authenticate(database, text)


def test_remove_member__ends_their_tokens_in_that_team_for_good(database: Database) -> None:
    make_member(database, "ann", "blue", Role.MEMBER)
    _, red = make_token(database, "ann", "red")
    _, blue = make_token(database, "ann", "blue")
    with database.unit_of_work() as session:
        service.remove_member(session, ROOT, "red", "ann")
    assert _authenticate(database, blue).team == "blue"
    make_member(database, "ann", "red", Role.MEMBER)
    with pytest.raises(UnauthenticatedError):
        _authenticate(database, red)


def test_demoted_admin__keeps_no_way_in_without_a_membership(database: Database) -> None:
    text = admin_token(database, "eve")
    with database.unit_of_work() as session:
        service.put_user(session, ROOT, "eve", is_admin=False)
    with pytest.raises(UnauthenticatedError, match="no longer a member"):
        _authenticate(database, text)


def test_create__stores_a_digest_and_never_the_token(database: Database) -> None:
    token_id, text = make_token(database, "ann", "red")
    row = read_token(database, token_id)
    stored = [getattr(row, column.key) for column in inspect(Token).columns]
    assert row.digest == token_text.digest(text)
    assert text.startswith(row.prefix)
    assert text not in str(stored)
    assert text[len(row.prefix) :] not in str(stored)


def test_create__lives_as_long_as_asked_and_90_days_by_default(database: Database) -> None:
    row, _ = _create(database, ROOT, user="ann", team="red", expires_in_s=3600)
    assert row.expires_at is not None
    assert row.expires_at - row.created_at == pytest.approx(timedelta(hours=1), abs=timedelta(seconds=1))
    row, _ = _create(database, ROOT, user="ann", team="red")
    assert row.expires_at is not None
    assert (row.expires_at - row.created_at).days in (89, 90)
    row, _ = _create(database, ROOT, user="ann", team="red", expires_in_s=None)
    assert row.expires_at is None


def test_create__by_a_member_is_for_oneself_and_ends_no_later_than_the_token_used(database: Database) -> None:
    token_id, text = make_token(database, "ann", "red", expires_in_s=3600)
    ann = _authenticate(database, text)
    own, _ = _create(database, ann)
    assert own.user_name == "ann"
    assert own.expires_at == read_token(database, token_id).expires_at
    shorter, _ = _create(database, ann, expires_in_s=60)
    assert shorter.expires_at is not None
    assert shorter.expires_at < own.expires_at
    with pytest.raises(ForbiddenError, match="outlive"):
        _create(database, ann, expires_in_s=7200)
    with pytest.raises(ForbiddenError, match="needs the role admin"):
        _create(database, ann, user="bob")
    with pytest.raises(NotFoundError, match="no team blue"):
        _create(database, ann, team="blue")


def test_create__by_a_viewer_is_forbidden(database: Database) -> None:
    viewer = make_member(database, "vic", "red", Role.VIEWER)
    with pytest.raises(ForbiddenError):
        _create(database, viewer)


def test_create__by_a_team_admin_is_for_members_of_that_team(database: Database) -> None:
    lead = make_member(database, "lea", "red", Role.ADMIN)
    assert _create(database, lead, user="ann")[0].team_name == "red"
    with pytest.raises(InvalidRequestError, match="no member of team red"):
        _create(database, lead, user="stranger")
    with pytest.raises(NotFoundError):
        _create(database, lead, user="ann", team="blue")


def test_create__by_a_team_admin_never_speaks_for_an_admin_of_the_service(database: Database) -> None:
    lead = make_member(database, "lea", "red", Role.ADMIN)
    make_member(database, "root", "red", Role.MEMBER)
    with pytest.raises(ForbiddenError, match="admin of this service"):
        _create(database, lead, user="root")


def test_list__shows_each_caller_what_they_may_manage(database: Database) -> None:
    make_member(database, "bea", "blue", Role.MEMBER)
    owners = [("ann", "red"), ("bob", "red"), ("bea", "blue")]
    ids = {user: make_token(database, user, team)[0] for user, team in owners}

    def seen(principal: Principal) -> set[str]:
        with database.read() as session:
            return {row.id for row in tokens.list_tokens(session, principal)[0]}

    assert seen(Principal("ann", "red", role=Role.MEMBER)) == {ids["ann"]}
    assert seen(Principal("lea", "red", role=Role.ADMIN)) == {ids["ann"], ids["bob"]}
    assert seen(ROOT) >= set(ids.values())


def test_list__pages_hold_every_token_once(database: Database) -> None:
    made = {make_token(database, "ann", "red")[0] for _ in range(5)}
    found, cursor = [], None
    while True:
        with database.read() as session:
            page, cursor = tokens.list_tokens(
                session, Principal("ann", "red", role=Role.MEMBER), cursor=cursor, limit=2
            )
        found += [row.id for row in page]
        if cursor is None:
            break
    assert sorted(found) == sorted(made)


def test_revoke__of_somebody_elses_token_finds_nothing(database: Database) -> None:
    token_id, text = make_token(database, "bob", "red")
    for stranger in (Principal("ann", "red", role=Role.MEMBER), Principal("lea", "blue", role=Role.ADMIN)):
        with pytest.raises(NotFoundError), database.unit_of_work() as session:
            tokens.revoke(session, stranger, token_id)
    assert _authenticate(database, text).user == "bob"


def test_revoke__twice_keeps_the_first_instant_and_one_event(database: Database) -> None:
    token_id, _ = make_token(database, "ann", "red")
    with database.unit_of_work() as session:
        tokens.revoke(session, Principal("ann", "red", role=Role.MEMBER), token_id)
    first = read_token(database, token_id).revoked_at
    with database.unit_of_work() as session:
        tokens.revoke(session, ROOT, token_id)
        events, _ = audit.list_events(session, ROOT)
    assert read_token(database, token_id).revoked_at == first
    assert [event.actor for event in events if event.action == "token_revoked"] == ["ann"]


def test_touch__writes_at_most_once_a_minute(database: Database) -> None:
    token_id, text = make_token(database, "ann", "red")

    def use() -> bool:
        with database.read() as session:
            needs_touch = tokens.authenticate(session, text).needs_touch
        with database.unit_of_work() as session:
            tokens.touch(session, token_id)
        return needs_touch

    assert use()
    first = read_token(database, token_id).last_used_at
    assert first is not None
    assert not use()
    assert read_token(database, token_id).last_used_at == first
    _move(database, token_id, last_used_at=db_now(-tokens.TOUCH_EVERY_S - 1))
    assert use()
    assert (read_token(database, token_id).last_used_at or first) > first - timedelta(seconds=1)


def _with(principal: Principal, token: Token) -> Principal:
    return replace(principal, token_id=token.id)


def test_revoke__ends_what_was_made_with_the_token_as_well(database: Database) -> None:
    ann = make_member(database, "ann", "red", Role.MEMBER)
    first, _ = _create(database, ann)
    second, second_text = _create(database, _with(ann, first))
    third, third_text = _create(database, _with(ann, second))
    _, other_text = _create(database, ann)
    assert (second.parent_id, third.parent_id) == (first.id, second.id)
    with database.unit_of_work() as session:
        tokens.revoke(session, ann, first.id)
    for text in (second_text, third_text):
        with pytest.raises(UnauthenticatedError, match="was revoked"):
            _authenticate(database, text)
    assert _authenticate(database, other_text).user == "ann"
    with database.read() as session:
        events, _ = audit.list_events(session, ROOT)
    assert {event.subject for event in events if event.action == "token_revoked"} == {first.id, second.id, third.id}


def test_promotion__ends_the_tokens_that_no_admin_of_the_service_made(database: Database) -> None:
    lea = make_member(database, "lea", "red", Role.ADMIN)
    boss = make_member(database, "boss", "red", Role.MEMBER)
    kept_by_lea, kept_text = _create(database, lea, user="boss")
    _, own_text = _create(database, _with(boss, kept_by_lea))
    _, safe_text = _create(database, ROOT, user="boss", team="red")
    admin_token(database)
    with database.unit_of_work() as session:
        service.put_user(session, ROOT, "boss", is_admin=True)
    for text in (kept_text, own_text):
        with pytest.raises(UnauthenticatedError, match="was revoked"):
            _authenticate(database, text)
    assert _authenticate(database, safe_text).is_admin
    with database.read() as session:
        events, _ = audit.list_events(session, ROOT)
    assert kept_by_lea.id in {event.subject for event in events if event.action == "token_revoked"}
    with database.unit_of_work() as session:  # who is one already loses nothing
        service.put_user(session, ROOT, "boss", is_admin=True)
    assert _authenticate(database, safe_text).is_admin


def test_recovery__of_a_user_as_an_admin_ends_such_tokens_too(database: Database) -> None:
    lea = make_member(database, "lea", "red", Role.ADMIN)
    _, kept_text = _create(database, lea, user="ann")
    text = admin_token(database, "ann")
    with pytest.raises(UnauthenticatedError, match="was revoked"):
        _authenticate(database, kept_text)
    admin_token(database, "ann")
    assert _authenticate(database, text).is_admin
