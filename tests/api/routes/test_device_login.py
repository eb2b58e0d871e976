"""Programs that sign in over REST: what they are told, and what comes of misuse."""

import re
from collections.abc import Callable

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from tests.api.token_service import Callers, bearer, submit
from xsam.api.app import create_app
from xsam.api.client import Client
from xsam.services.db.clock import db_now
from xsam.services.db.session import Database
from xsam.services.settings import ApiSettings, PageSettings, Settings
from xsam.services.teams.models import DeviceCode

Confirm = Callable[..., httpx.Response]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"api": ApiSettings(auth="token")})


@pytest.fixture
def confirm(http: httpx.Client, callers: Callers) -> Confirm:
    """Send the page's form as one of the callers."""

    def confirmed(caller: str, code: str, decision: str = "confirm") -> httpx.Response:
        headers = {**callers.headers(caller), "Sec-Fetch-Site": "same-origin", "Accept": "text/html"}
        return http.post("/device", data={"code": code, "decision": decision}, headers=headers)

    return confirmed


def _begin(http: httpx.Client) -> dict[str, str]:
    answer = http.post("/v1/device/code", json={"label": "laptop"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return dict(answer.json())


def _ask(http: httpx.Client, begun: dict[str, str]) -> httpx.Response:
    return http.post("/v1/device/token", json={"device_code": begun["device_code"]})


def _refused(answer: httpx.Response) -> str:
    assert answer.status_code == 400, answer.text
    return str(answer.json()["code"])


def _sooner(database: Database) -> None:
    with database.unit_of_work() as session:
        session.execute(update(DeviceCode).values(asked_at=None))


def test_program__is_confirmed_and_speaks_for_the_person(
    http: httpx.Client, callers: Callers, confirm: Confirm
) -> None:
    begun = _begin(http)
    assert re.fullmatch(r"[B-Z]{4}-[B-Z]{4}", begun["user_code"])
    assert begun["verification_uri_complete"] == f"{http.base_url}/device?code={begun['user_code']}".replace(
        "//d", "/d"
    )
    assert _refused(_ask(http, begun)) == "authorization_pending"
    assert "Confirmed" in confirm("member", begun["user_code"]).text
    granted = _ask(http, begun).raise_for_status()
    assert granted.headers["cache-control"] == "no-store"
    document = granted.json()
    assert (document["token_type"], 0 < document["expires_in"] <= 90 * 86_400) == ("Bearer", True)
    who = http.get("/v1/whoami", headers=bearer(document["access_token"])).json()
    assert (who["user"], who["team"], who["role"]) == ("ann", "red", "member")
    assert http.post("/v1/jobs", json={}, headers=bearer(document["access_token"])).status_code == 201


def test_second_use__gets_no_token(http: httpx.Client, callers: Callers, confirm: Confirm) -> None:
    begun = _begin(http)
    confirm("member", begun["user_code"])
    assert _ask(http, begun).status_code == 200
    assert _refused(_ask(http, begun)) == "invalid_grant"
    assert confirm("member", begun["user_code"]).status_code == 404


def test_refused_and_expired__are_told_apart(http: httpx.Client, database: Database, confirm: Confirm) -> None:
    refused, expired = _begin(http), _begin(http)
    assert "gets no token" in confirm("member", refused["user_code"], "refuse").text
    assert _refused(_ask(http, refused)) == "access_denied"
    with database.unit_of_work() as session:
        session.execute(update(DeviceCode).values(expires_at=db_now(-1)))
    assert _refused(_ask(http, expired)) == "expired_token"
    assert confirm("member", expired["user_code"]).status_code == 404


def test_impatient_program__is_slowed_down(http: httpx.Client, database: Database) -> None:
    begun = _begin(http)
    assert [_refused(_ask(http, begun)) for _ in range(2)] == ["authorization_pending", "slow_down"]
    _sooner(database)
    assert _refused(_ask(http, begun)) == "authorization_pending"


def test_token__sees_the_team_of_who_confirmed_and_no_other(
    http: httpx.Client, callers: Callers, confirm: Confirm
) -> None:
    job_id = submit(http, callers)
    begun = _begin(http)
    confirm("stranger", begun["user_code"])
    token = _ask(http, begun).json()["access_token"]
    assert http.get(f"/v1/jobs/{job_id}", headers=bearer(token)).status_code == 404
    assert http.get("/v1/whoami", headers=bearer(token)).json()["team"] == "blue"


def test_viewer__confirms_nothing(http: httpx.Client, confirm: Confirm) -> None:
    begun = _begin(http)
    assert confirm("viewer", begun["user_code"]).status_code == 403
    assert _refused(_ask(http, begun)) == "authorization_pending"


def test_confirming__needs_somebody_who_is_signed_in(http: httpx.Client) -> None:
    begun = _begin(http)
    form = {"code": begun["user_code"], "decision": "confirm"}
    answer = http.post("/device", data=form, headers={"Sec-Fetch-Site": "same-origin"})
    assert answer.status_code == 401
    looked = http.get(f"/device?code={begun['user_code']}", headers={"Accept": "text/html"}, follow_redirects=False)
    assert looked.headers["location"] == f"/sign-in?next=/device%3Fcode%3D{begun['user_code']}"


def test_another_site__confirms_nothing(http: httpx.Client, callers: Callers) -> None:
    begun = _begin(http)
    headers = {**callers.headers("member"), "Sec-Fetch-Site": "cross-site"}
    form = {"code": begun["user_code"], "decision": "confirm"}
    assert http.post("/device", data=form, headers=headers).status_code == 403
    assert _refused(_ask(http, begun)) == "authorization_pending"


def test_guessing__soon_has_to_wait(http: httpx.Client, confirm: Confirm) -> None:
    begun = _begin(http)
    tries = [confirm("member", "BCDF-GHJK").status_code for _ in range(11)]
    assert tries == [404] * 10 + [429]
    assert confirm("member", begun["user_code"]).status_code == 429
    assert confirm("lead", begun["user_code"]).status_code == 200


def test_guessing_device_codes__is_limited_by_address(settings: Settings, database: Database) -> None:
    api = ApiSettings(auth="token", rate_limit_per_s=0.001, rate_limit_burst=2)
    with TestClient(create_app(settings.model_copy(update={"api": api}), database)) as http:
        tries = [http.post("/v1/device/token", json={"device_code": "x"}).status_code for _ in range(3)]
    assert tries == [400, 400, 429]


def test_new_programs__are_limited_by_address(http: httpx.Client) -> None:
    tries = [http.post("/v1/device/code", json={}).status_code for _ in range(11)]
    assert tries == [200] * 10 + [429]


def test_bodies__are_checked_as_everywhere(http: httpx.Client) -> None:
    answer = http.post("/v1/device/token", json={"device_code": "x", "grant_type": "password"})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "grant_type")
    assert http.post("/v1/device/code", json={"scope": "all"}).status_code == 422


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"api": ApiSettings()}, "asks nobody"), ({"page": PageSettings(enabled=False)}, "has no page")],
)
def test_service_where_nobody_could_confirm__says_so(
    settings: Settings, database: Database, change: dict[str, object], reason: str
) -> None:
    with TestClient(create_app(settings.model_copy(update=change), database), base_url="http://127.0.0.1") as http:
        answer = http.post("/v1/device/code", json={})
    assert (answer.status_code, reason in answer.json()["detail"]) == (409, True)


def test_client__waits_until_somebody_confirms(url: str, confirm: Confirm, database: Database) -> None:
    waits: list[float] = []

    with Client(url) as client:
        begun = client.device_login.begin("laptop")

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 3:
                confirm("member", begun.user_code)

        granted = client.device_login.wait(begun, sleep=sleep)
    assert waits == [5.0, 5.0, 10.0]  # the second question came too soon
    with Client(url, token=granted.access_token) as client:
        assert client.whoami().user == "ann"
