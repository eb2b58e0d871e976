"""Who somebody is whom a provider vouches for, and what their groups let them do."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from tests.support.callers import ROOT, admin_token, make_member, make_team
from xsam.services.db.session import Database
from xsam.services.errors import UnauthenticatedError
from xsam.services.settings import SignOnSettings
from xsam.services.teams import closing, service, tokens
from xsam.services.teams.models import Membership, Token, User
from xsam.services.teams.roles import Principal, Role
from xsam.services.teams.sign_on import Person, SeveralTeamsError, sign_in

ISSUER = "https://login.example.org"
RULES = SignOnSettings.model_validate(
    {
        "issuer": ISSUER,
        "public_url": "https://xsam.example.org",
        "groups": {
            "vision": [{"team": "red"}],
            "leads": [{"team": "red", "role": "admin"}],
            "speech": [{"team": "blue", "role": "viewer"}],
            "gone": [{"team": "nowhere"}],
        },
        "admin_groups": ["operators"],
        "hours": 2,
    }
)


@pytest.fixture(autouse=True)
def teams(database: Database) -> None:
    admin_token(database)
    for team in ("red", "blue", "green"):
        make_team(database, team)


def _person(*groups: str, subject: str = "17", name: str = "ann") -> Person:
    return Person(ISSUER, subject, name, frozenset(groups))


def _sign_in(database: Database, person: Person, team: str | None = None, **changes: Any) -> Principal:
    with database.unit_of_work() as session:
        return sign_in(session, RULES.model_copy(update=changes), person, team=team)


def _roles(database: Database, user: str) -> dict[str, str]:
    with database.read() as session:
        query = select(Membership.team_name, Membership.role).where(Membership.user_name == user)
        return {row.team_name: row.role for row in session.execute(query)}


def test_first_sign_in__makes_the_user_with_the_highest_role_of_their_groups(database: Database) -> None:
    principal = _sign_in(database, _person("vision", "leads", "unknown"))
    assert (principal.user, principal.team, principal.role, principal.is_admin) == ("ann", "red", Role.ADMIN, False)
    with database.read() as session:
        token = session.get_one(Token, principal.token_id)
        assert token.expires_at is not None
        assert round((token.expires_at - token.created_at).total_seconds()) == 7200


def test_memberships__follow_the_groups_in_the_teams_they_speak_of(database: Database) -> None:
    first = _sign_in(database, _person("leads", "speech"), team="red")
    with database.unit_of_work() as session:
        service.put_member(session, ROOT, "green", "ann", Role.MEMBER)
    _sign_in(database, _person("speech"), team="blue")
    assert _roles(database, "ann") == {"blue": "viewer", "green": "member"}
    with database.read() as session, pytest.raises(UnauthenticatedError, match="revoked"):
        tokens.holder(session, first.token_id or "")


def test_name__may_change_at_the_provider(database: Database) -> None:
    _sign_in(database, _person("vision"))
    assert _sign_in(database, _person("vision", name="ann.smith")).user == "ann"


def test_two_people__are_never_one_user(database: Database) -> None:
    _sign_in(database, _person("vision"))
    with pytest.raises(UnauthenticatedError, match="there is a user ann already"):
        _sign_in(database, _person("vision", subject="18"), adopts_users=True)


@pytest.mark.parametrize(
    ("claimed", "name"),
    [("Ann.Smith@Example.org", "ann.smith@example.org"), ("EXAMPLE\\ann", "example-ann"), (".ann", "ann")],
)
def test_names__are_made_to_fit(database: Database, claimed: str, name: str) -> None:
    assert _sign_in(database, _person("vision", name=claimed)).user == name


@pytest.mark.parametrize("claimed", ["system", "...", "王"])
def test_names__that_do_not_fit_are_refused(database: Database, claimed: str) -> None:
    with pytest.raises(UnauthenticatedError, match="makes no user name here"):
        _sign_in(database, _person("vision", name=claimed))


def test_user_made_by_hand__is_taken_over_only_where_that_is_set(database: Database) -> None:
    make_member(database, "ann", "green", Role.MEMBER)
    with pytest.raises(UnauthenticatedError, match="there is a user ann already"):
        _sign_in(database, _person("vision"))
    principal = _sign_in(database, _person("vision"), team="red", adopts_users=True)
    assert principal.user == "ann"
    assert _roles(database, "ann") == {"green": "member", "red": "member"}


def test_admin_made_by_hand__is_never_taken_over(database: Database) -> None:
    with pytest.raises(UnauthenticatedError, match="there is a user root already"):
        _sign_in(database, _person("operators", name="root"), adopts_users=True)


def test_admins__come_and_go_with_their_group(database: Database) -> None:
    principal = _sign_in(database, _person("operators"))
    assert (principal.is_admin, principal.team) == (True, "default")
    principal = _sign_in(database, _person("vision"))
    assert principal.is_admin is False
    with database.read() as session:
        assert session.get_one(User, "root").is_admin, "the one who has a token for emergencies stays"


def test_without_admin_groups__nobody_is_touched(database: Database) -> None:
    _sign_in(database, _person("vision"))
    with database.unit_of_work() as session:
        service.put_user(session, ROOT, "ann", is_admin=True)
    assert _sign_in(database, _person("vision"), admin_groups=()).is_admin


@pytest.mark.parametrize("groups", [(), ("unknown",), ("gone",)])
def test_without_a_team__nobody_comes_in(database: Database, groups: tuple[str, ...]) -> None:
    with pytest.raises(UnauthenticatedError, match="none of your groups has a team here"):
        _sign_in(database, _person(*groups))
    assert _roles(database, "ann") == {}


def test_several_teams__ask_which(database: Database) -> None:
    person = _person("vision", "speech")
    with pytest.raises(SeveralTeamsError, match="you are in the teams blue, red; choose one") as error:
        _sign_in(database, person)
    assert error.value.teams == ["blue", "red"]
    assert _sign_in(database, person, team="blue").role is Role.VIEWER
    with pytest.raises(UnauthenticatedError, match="team is 'green'; yours are blue, red"):
        _sign_in(database, person, team="green")


@pytest.mark.parametrize("leave", [closing.disable_user, closing.delete_user])
def test_disabled_and_deleted_users__stay_out(database: Database, leave: Callable[..., object]) -> None:
    _sign_in(database, _person("vision"))
    with database.unit_of_work() as session:
        closing.disable_user(session, ROOT, "ann")
    with database.unit_of_work() as session:
        leave(session, ROOT, "ann")
    with pytest.raises(UnauthenticatedError, match="user ann was disabled here"):
        _sign_in(database, _person("vision"))
