import pytest

from tests.support.callers import ROOT, admin_token, begin_session, make_member, make_team, make_token
from xsam.services.db.session import Database
from xsam.services.errors import (
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    UnauthenticatedError,
)
from xsam.services.teams import audit, bootstrap, closing, service, sessions, tokens
from xsam.services.teams.models import Token, User
from xsam.services.teams.roles import Principal, Role
from xsam.services.teams.schemas import TeamPatch, TeamWrite, TokenCreate

LEAD = Principal("lea", "red", role=Role.ADMIN)


@pytest.fixture(autouse=True)
def _red(database: Database) -> None:
    make_team(database, "red")
    make_team(database, "blue")
    for team in ("red", "blue"):
        make_member(database, "ann", team, Role.MEMBER)


def _speaks(database: Database, text: str) -> str | None:
    """Return the team that a token speaks for, None if it is no longer valid."""
    try:
        with database.read() as session:
            return tokens.authenticate(session, text).principal.team
    except UnauthenticatedError:
        return None


def _disable_team(database: Database, name: str = "red", *, by: Principal = ROOT) -> closing.Access:
    with database.unit_of_work() as session:
        return closing.disable_team(session, by, name)


def _disable_user(database: Database, name: str = "ann", *, by: Principal = ROOT) -> closing.Access:
    with database.unit_of_work() as session:
        return closing.disable_user(session, by, name)


def _enable_team(database: Database, name: str = "red") -> None:
    with database.unit_of_work() as session:
        closing.enable(session, ROOT, closing.get_team(session, name, lock=True))


def _enable_user(database: Database, name: str = "ann") -> None:
    with database.unit_of_work() as session:
        closing.enable(session, ROOT, closing.get_user(session, name, lock=True))


def test_disable_team__ends_its_tokens_and_sessions_and_no_others(database: Database) -> None:
    red_id, red = make_token(database, "ann", "red")
    _, blue = make_token(database, "ann", "blue")
    _, secret = begin_session(database, red_id)
    ended = _disable_team(database)
    assert (ended.num_tokens, ended.num_sessions) == (1, 1)
    assert (_speaks(database, red), _speaks(database, blue)) == (None, "blue")
    with pytest.raises(UnauthenticatedError), database.read() as session:
        sessions.authenticate(session, secret)
    again = _disable_team(database)
    assert (again.num_tokens, again.num_sessions) == (0, 0)


def test_disable_user__ends_tokens_in_all_teams_and_those_made_with_them(database: Database) -> None:
    token_id, red = make_token(database, "ann", "red")
    _, blue = make_token(database, "ann", "blue")
    make_member(database, "bob", "red", Role.MEMBER)
    _, bobs = make_token(database, "bob", "red")
    with database.unit_of_work() as session:
        _, made = tokens.create(session, tokens.holder(session, token_id), TokenCreate())
    assert _disable_user(database).num_tokens == 3
    assert [_speaks(database, text) for text in (red, blue, made, bobs)] == [None, None, None, "red"]


def test_disabled__get_no_token_and_no_token_speaks_for_them(database: Database) -> None:
    token_id, text = make_token(database, "ann", "red")
    _disable_user(database)
    with pytest.raises(InvalidRequestError, match="who is disabled") as refused:
        make_token(database, "ann", "red")
    assert refused.value.field == "user"
    with database.unit_of_work() as session:  # as one that was made in the same moment
        session.get_one(Token, token_id).revoked_at = None
    with pytest.raises(UnauthenticatedError, match="user ann was disabled"), database.read() as session:
        tokens.authenticate(session, text)
    _enable_user(database)
    _disable_team(database)
    with pytest.raises(InvalidRequestError, match="which is disabled") as refused:
        make_token(database, "ann", "red")
    assert refused.value.field == "team"


def test_enable__gives_no_token_back(database: Database) -> None:
    _, text = make_token(database, "ann", "red")
    _disable_team(database)
    _enable_team(database)
    assert _speaks(database, text) is None
    assert _speaks(database, make_token(database, "ann", "red")[1]) == "red"


def test_delete_team__takes_it_out_of_all_lists_but_keeps_its_name(database: Database) -> None:
    with database.unit_of_work() as session:
        closing.delete_team(session, ROOT, "red")
    with database.unit_of_work() as session:
        assert "red" not in [team.name for team in service.list_teams(session, ROOT)]
        with pytest.raises(NotFoundError):
            service.get_team(session, ROOT, "red")
        with pytest.raises(NotFoundError):
            service.patch_team(session, ROOT, "red", TeamPatch(weight=2))
        with pytest.raises(NotFoundError):
            service.put_member(session, ROOT, "red", "ann", Role.MEMBER)
        with pytest.raises(ConflictError, match="enable it again"):
            service.put_team(session, ROOT, "red", TeamWrite())
    _enable_team(database)
    with database.read() as session:
        assert list(service.list_members(session, ROOT, "red")) == []


def test_delete_user__takes_them_out_of_all_teams(database: Database) -> None:
    with database.unit_of_work() as session:
        closing.delete_user(session, ROOT, "ann")
    with database.unit_of_work() as session:
        assert "ann" not in [user.name for user in service.list_users(session, ROOT)]
        for team in ("red", "blue"):
            assert list(service.list_members(session, ROOT, team)) == []
        with pytest.raises(ConflictError, match="user ann was deleted"):
            service.put_member(session, ROOT, "red", "ann", Role.MEMBER)
        with pytest.raises(ConflictError, match="user ann was deleted"):
            service.put_user(session, ROOT, "ann", is_admin=True)
    _enable_user(database)
    assert make_member(database, "ann", "red", Role.MEMBER).user == "ann"


def test_disable__leaves_the_service_an_admin_and_the_caller_a_way_back(database: Database) -> None:
    admin_token(database, "root")
    admin_token(database, "eva")
    other = Principal(user="someone", team="blue", role=Role.ADMIN, is_admin=True)
    with pytest.raises(ConflictError, match="root is you"):
        _disable_user(database, "root")
    _disable_user(database, "eva", by=other)
    with pytest.raises(ConflictError, match="only admin"):
        _disable_user(database, "root", by=other)
    with pytest.raises(ConflictError, match="only admin"), database.unit_of_work() as session:
        service.put_user(session, other, "root", is_admin=False)
    with pytest.raises(ConflictError, match="has to stay"):
        _disable_team(database, "default")
    with pytest.raises(ConflictError, match="your token speaks for team blue"):
        _disable_team(database, "blue", by=other)


def test_admin_token__lets_a_locked_out_operator_in_again(database: Database) -> None:
    admin_token(database, "root")
    admin_token(database, "eva")
    with database.unit_of_work() as session:
        closing.delete_user(session, ROOT, "eva")
        assert bootstrap.first_admin_token(session) is None
        session.get_one(User, "root").disabled_at = session.get_one(User, "eva").disabled_at
        session.flush()
        assert bootstrap.first_admin_token(session) is not None
    assert _speaks(database, admin_token(database, "eva")) == "default"


def test_closing__is_for_admins_of_the_service(database: Database) -> None:
    for call in (closing.disable_team, closing.delete_team):
        with pytest.raises(ForbiddenError), database.unit_of_work() as session:
            call(session, LEAD, "red")
    for call in (closing.disable_user, closing.delete_user):
        with pytest.raises(ForbiddenError), database.unit_of_work() as session:
            call(session, LEAD, "ann")
    with pytest.raises(NotFoundError):
        _disable_team(database, "green")
    with pytest.raises(NotFoundError):
        _disable_user(database, "zoe")


def test_audit__says_what_has_ended_once(database: Database) -> None:
    make_token(database, "ann", "red")
    _disable_team(database)
    _disable_team(database)
    _enable_team(database)
    _enable_team(database)
    with database.unit_of_work() as session:
        closing.delete_team(session, ROOT, "red")
        closing.delete_team(session, ROOT, "red")
        events, _ = audit.list_events(session, ROOT)
    told = [(one.action, one.data) for one in reversed(events) if one.subject == "red"]
    assert told[1:] == [
        ("team_disabled", {"num_tokens": 1, "num_sessions": 0}),
        ("team_enabled", {}),
        ("team_disabled", {"num_tokens": 0, "num_sessions": 0}),
        ("team_deleted", {"num_memberships": 1}),
    ]
