"""Sessions and whoami over a real connection to a service that needs tokens."""

import pytest
from fastapi import FastAPI

from tests.api.token_service import Callers
from xsam.api.client import Client
from xsam.services.db.session import Database
from xsam.services.settings import ApiSettings, Settings
from xsam.services.teams import sessions
from xsam.services.teams.roles import Capability


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"api": ApiSettings(auth="token")})


def test_session__is_begun_listed_and_ended(url: str, callers: Callers, database: Database) -> None:
    with Client(url, token=callers.valid["viewer"]) as client:
        made = client.admin.begin_session()
        with database.read() as session:
            assert sessions.authenticate(session, made.secret).principal.user == "vic"
        [listed] = client.admin.sessions()
        assert (listed.id, listed.user_agent is None) == (made.id, False)
        client.admin.end_session(made.id)
        assert list(client.admin.sessions()) == []
        client.admin.begin_session()
        client.admin.end_sessions()
        assert list(client.admin.sessions()) == []


@pytest.mark.parametrize(
    ("caller", "may"),
    [
        ("viewer", set()),
        ("member", {Capability.CHANGE_JOBS}),
        ("lead", {Capability.CHANGE_JOBS, Capability.MANAGE_TEAM}),
        ("admin", {Capability.CHANGE_JOBS, Capability.MANAGE_TEAM, Capability.MANAGE_SERVICE}),
    ],
)
def test_whoami__says_what_the_caller_may_do(url: str, callers: Callers, caller: str, may: set[Capability]) -> None:
    with Client(url, token=callers.valid[caller]) as client:
        found = client.whoami()
        assert set(found.capabilities) == may
        assert found.token_id is not None


def test_whoami__says_when_the_token_ends(url: str, callers: Callers) -> None:
    with Client(url, token=callers.valid["member"]) as client:
        made = client.admin.create_token(expires_in_s=3600)
    with Client(url, token=made.token) as client:
        assert client.whoami().token_expires_at == made.expires_at


def test_stream__ends_soon_after_its_session(app: FastAPI) -> None:
    from xsam.api.http.access import Admission
    from xsam.services.teams.roles import Principal

    admission = Admission(app.state.service.database, Principal("ann", "red", token_id="t", session_id="nosuch"))
    assert not admission._look("t")
