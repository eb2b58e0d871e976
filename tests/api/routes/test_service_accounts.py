"""Service accounts over REST: who makes them, what they may and may not."""

from typing import Any

import httpx
import pytest

from tests.api.token_service import Callers, bearer
from xsam.services.db.session import Database
from xsam.services.errors import UnauthenticatedError
from xsam.services.settings import ApiSettings, Settings, SignOnSettings
from xsam.services.teams.sign_on import Person, sign_in


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"api": ApiSettings(auth="token")})


def _put(http: httpx.Client, callers: Callers, caller: str = "lead", name: str = "nightly", **body: Any) -> Any:
    body = {"team": "red", **body}
    return http.put(f"/v1/service-accounts/{name}", json=body, headers=callers.headers(caller))


def test_account__is_made_by_the_teams_admin_and_works_with_a_token_that_ends(
    http: httpx.Client, callers: Callers
) -> None:
    made = _put(http, callers)
    assert (made.status_code, made.json()["is_service"], made.json()["is_admin"]) == (201, True, False)
    wanted = {"user": "nightly", "expires_in_s": None}
    endless = http.post("/v1/tokens", json=wanted, headers=callers.headers("lead"))
    assert (endless.status_code, endless.json()["errors"][0]["field"]) == (422, "expires_in_s")
    token = http.post("/v1/tokens", json={**wanted, "expires_in_s": 3600}, headers=callers.headers("lead")).json()
    job = http.post("/v1/jobs", json={}, headers=bearer(token["token"]))
    assert (job.status_code, job.json()["submitted_by"], job.json()["team"]) == (201, "nightly", "red")
    users = http.get("/v1/users", headers=callers.headers("admin")).json()["items"]
    assert {user["name"]: user["is_service"] for user in users}["nightly"] is True


def test_account__changes_its_role_and_has_one_team(http: httpx.Client, callers: Callers) -> None:
    _put(http, callers)
    assert _put(http, callers, role="viewer").status_code == 200
    members = http.get("/v1/teams/red/members", headers=callers.headers("lead")).json()["items"]
    assert {one["user"]: one["role"] for one in members}["nightly"] == "viewer"
    assert _put(http, callers, "admin", team="blue").status_code == 409
    path = "/v1/teams/blue/members/nightly"
    assert http.put(path, json={"role": "member"}, headers=callers.headers("admin")).status_code == 409


@pytest.mark.parametrize(("caller", "status"), [("member", 403), ("viewer", 403), ("stranger", 404), ("lead", 201)])
def test_account__is_made_by_admins_only(http: httpx.Client, callers: Callers, caller: str, status: int) -> None:
    assert _put(http, callers, caller).status_code == status


def test_account__is_no_person_and_no_admin(http: httpx.Client, callers: Callers) -> None:
    assert _put(http, callers, name="ann").status_code == 409
    _put(http, callers)
    answer = http.put("/v1/users/nightly", json={"is_admin": True}, headers=callers.headers("admin"))
    assert (answer.status_code, "service account" in answer.json()["detail"]) == (409, True)


def test_account__is_nobody_who_could_sign_on(http: httpx.Client, callers: Callers, database: Database) -> None:
    _put(http, callers)
    rules = SignOnSettings.model_validate({"groups": {"vision": [{"team": "red"}]}, "adopts_users": True})
    person = Person("https://login.example", "4711", "nightly", frozenset({"vision"}))
    with database.unit_of_work() as session, pytest.raises(UnauthenticatedError, match="already"):
        sign_in(session, rules, person)
