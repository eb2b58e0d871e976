"""Signing in and out; what a cookie is good for, and what it is not."""

from collections.abc import Callable

import httpx
import pytest
from fastapi.testclient import TestClient

from tests.api.access_table import PAGES
from tests.api.dashboard.conftest import BASE, OWN, form_token
from tests.api.dashboard.reading import read
from tests.api.token_service import Callers
from tests.support.callers import ROOT
from xsam.api.app import create_app
from xsam.services.db.session import Database
from xsam.services.settings import ApiSettings, Settings
from xsam.services.teams import tokens

SignIn = Callable[[str], TestClient]


def test_page__is_for_those_who_have_signed_in(guarded: TestClient) -> None:
    for method, path in PAGES:
        answer = guarded.request(method, path, headers=OWN)
        sent = answer.headers.get("location", "").partition("?")[0]
        assert (answer.status_code, sent) == (303, "/sign-in"), (method, path)


def test_pages__lead_to_the_sign_in_and_back(guarded: TestClient, callers: Callers) -> None:
    answer = guarded.get("/jobs?state=failed")
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in?next=/jobs%3Fstate%3Dfailed")
    page = read(guarded.get(answer.headers["location"]).text)
    next_path = page.one("input", name="next").attributes["value"]
    assert next_path == "/jobs?state=failed"
    form = {"token": callers.valid["member"], "next": next_path}
    answer = guarded.post("/sign-in", data=form, headers=OWN)
    assert answer.headers["location"] == "/jobs?state=failed"
    assert guarded.get("/jobs").status_code == 200


def test_cookie__holds_no_token_and_is_kept_from_scripts(guarded: TestClient, callers: Callers) -> None:
    token = callers.valid["member"]
    answer = guarded.post("/sign-in", data={"token": token}, headers=OWN)
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("xsam=")
    assert token not in cookie
    assert {"HttpOnly", "SameSite=lax", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    assert "Domain" not in cookie


def test_cookie__is_for_this_host_alone_over_tls(guarded: TestClient, callers: Callers) -> None:
    headers = {"Sec-Fetch-Site": "same-origin", "Origin": "https://xsam.example"}
    answer = guarded.post("/sign-in", data={"token": callers.valid["member"]}, headers=headers)
    assert answer.headers["set-cookie"].startswith("__Host-xsam=")
    assert "Secure" in answer.headers["set-cookie"]


@pytest.mark.parametrize("kind", ["unknown", "garbage", "expired", "revoked"])
def test_wrong_tokens__are_refused_without_a_cookie(guarded: TestClient, callers: Callers, kind: str) -> None:
    answer = guarded.post("/sign-in", data={"token": callers.invalid[kind]}, headers=OWN)
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert callers.invalid[kind] not in answer.text
    assert read(answer.text).one("p", role="alert").text


def test_sign_in__is_limited_by_address(settings: Settings, database: Database) -> None:
    api = ApiSettings(auth="token", rate_limit_per_s=0.001, rate_limit_burst=2)
    app = create_app(settings.model_copy(update={"api": api}), database)
    with TestClient(app, base_url=BASE, headers={"Accept": "text/html"}) as browser:
        tries = [browser.post("/sign-in", data={"token": "wrong"}, headers=OWN).status_code for _ in range(3)]
    assert tries == [401, 401, 429]


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example/", "/\\evil.example"])
def test_next__stays_on_this_host(guarded: TestClient, callers: Callers, target: str) -> None:
    answer = guarded.post("/sign-in", data={"token": callers.valid["member"], "next": target}, headers=OWN)
    assert answer.headers["location"] == "/home"


def test_session__reads_and_changes_over_rest(sign_in: SignIn) -> None:
    browser = sign_in("member")
    assert browser.get("/v1/whoami").json()["user"] == "ann"
    assert browser.post("/v1/jobs", json={}, headers=OWN).status_code == 201


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "same-site", "Origin": BASE},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {},
    ],
)
def test_cookie__changes_nothing_for_another_site(sign_in: SignIn, headers: dict[str, str]) -> None:
    browser = sign_in("member")
    page = read(browser.get("/admin/tokens").text)
    assert browser.post("/v1/jobs", json={}, headers=headers).status_code == 403
    form = {"form_token": form_token(page), "label": "stolen"}
    assert browser.post("/admin/tokens", data=form, headers=headers).status_code == 403


def test_older_browsers__are_known_by_their_origin(sign_in: SignIn) -> None:
    assert sign_in("member").post("/v1/jobs", json={}, headers={"Origin": BASE}).status_code == 201


def test_forms__belong_to_one_session(sign_in: SignIn) -> None:
    earlier = form_token(read(sign_in("member").get("/admin/tokens").text))
    browser = sign_in("member")
    assert form_token(read(browser.get("/admin/tokens").text)) != earlier
    answer = browser.post("/admin/tokens", data={"form_token": earlier}, headers=OWN)
    assert answer.status_code == 403
    assert "another session" in read(answer.text).one("main").text


def test_bearer__goes_on_without_origin(guarded: TestClient, callers: Callers) -> None:
    assert guarded.post("/v1/jobs", json={}, headers=callers.headers("member")).status_code == 201


def test_revoked_token__ends_its_session(sign_in: SignIn, database: Database) -> None:
    browser = sign_in("member")
    with database.unit_of_work() as session:
        own, _ = tokens.list_tokens(session, ROOT, limit=200)
        for token in own:
            if token.user_name == "ann":
                tokens.revoke(session, ROOT, token.id)
    assert browser.get("/jobs").status_code == 303
    assert browser.get("/jobs", headers={"X-Part": "main"}).json()["code"] == "unauthenticated"


@pytest.mark.parametrize("everywhere", ["", "yes"])
def test_sign_out__ends_the_session(sign_in: SignIn, everywhere: str) -> None:
    browser = sign_in("member")
    secret = browser.cookies["xsam"]
    form = {"form_token": form_token(read(browser.get("/home").text)), "everywhere": everywhere}
    answer = browser.post("/sign-out", data=form, headers=OWN)
    assert answer.headers["location"] == "/sign-in"
    browser.cookies.clear()
    browser.cookies.set("xsam", secret)
    assert browser.get("/home").status_code == 303


def test_no_token_needed__no_sign_in(browser: TestClient) -> None:
    answer = browser.get("/sign-in?next=/queue")
    assert (answer.status_code, answer.headers["location"]) == (303, "/queue")


def test_foreign_names__reach_no_page_of_a_service_without_tokens(browser: TestClient) -> None:
    answer: httpx.Response = browser.get("/jobs", headers={"Host": "evil.example"})
    assert answer.status_code == 403


def test_bodies__from_nobody_are_refused_elsewhere(guarded: TestClient) -> None:
    assert guarded.post("/jobs/bulk", data={"verb": "cancel"}, headers=OWN).status_code == 303
    assert guarded.post("/v1/jobs", json={}, headers=OWN).status_code == 401
