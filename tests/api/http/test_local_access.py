"""A service without tokens: for one user, on loopback, and not for web pages."""

import httpx
import pytest
from pydantic import ValidationError

from xsam.services.settings import ApiSettings, Settings


def _settings(**api: object) -> Settings:
    return Settings(api=ApiSettings.model_validate(api))


@pytest.mark.parametrize(
    ("api", "needs_token"),
    [
        ({}, False),
        ({"host": "localhost"}, False),
        ({"host": "127.8.8.8"}, False),
        ({"host": "::1"}, False),
        ({"host": "::"}, True),
        ({"host": "0.0.0.0"}, True),
        ({"host": "10.0.0.7"}, True),
        ({"host": "gpu-head.example"}, True),
        ({"host": "localhost.example"}, True),
        ({"auth": "token"}, True),
        ({"auth": "none"}, False),
    ],
)
def test_needs_token__unless_only_this_machine_can_call(api: dict[str, object], needs_token: bool) -> None:
    assert _settings(**api).api.needs_token is needs_token


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "head"])
def test_auth_none__is_refused_where_others_can_call(host: str) -> None:
    with pytest.raises(ValidationError, match=r"allowed are api\.auth 'token', or a loopback host"):
        _settings(auth="none", host=host)


def test_caller__is_the_user_who_runs_the_service(http: httpx.Client) -> None:
    who = http.get("/v1/whoami").json()
    assert (who["team"], who["role"], who["is_admin"]) == ("default", "admin", True)
    assert http.post("/v1/jobs", json={}).json()["submitted_by"] == who["user"]
    assert http.put("/v1/teams/red", json={}).status_code == 201


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8042", "127.0.0.1.evil.example", "10.0.0.7"])
def test_foreign_host_header__is_refused(http: httpx.Client, host: str) -> None:
    response = http.get("/v1/jobs", headers={"Host": host})
    assert (response.status_code, response.json()["code"]) == (403, "forbidden")


@pytest.mark.parametrize("host", ["localhost", "localhost:9999", "127.0.0.1:1", "[::1]:8042"])
def test_loopback_host_header__is_let_in(http: httpx.Client, host: str) -> None:
    assert http.get("/v1/jobs", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "http://127.0.0.1.evil.example", "null"])
def test_foreign_origin__can_cancel_nothing(http: httpx.Client, origin: str) -> None:
    job_id = http.post("/v1/jobs", json={}).json()["id"]
    response = http.post(f"/v1/jobs/{job_id}/cancel", headers={"Origin": origin})
    assert (response.status_code, response.json()["code"]) == (403, "forbidden")
    assert http.get(f"/v1/jobs/{job_id}").json()["state"] == "queued"


def test_own_page__may_call(http: httpx.Client) -> None:
    response = http.post("/v1/jobs", json={}, headers={"Origin": str(http.base_url).rstrip("/")})
    assert response.status_code == 201
