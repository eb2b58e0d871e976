"""Signing in through a real OpenID provider that runs beside the test: its pages, its keys, its signatures."""

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fastapi.testclient import TestClient

from tests.api.dashboard.conftest import BASE, HTML
from tests.api.dashboard.reading import read
from tests.support.callers import admin_token, make_team
from tests.support.ports import free_port
from tests.support.served import wait_until
from xsam.api.app import create_app
from xsam.services.db.session import Database
from xsam.services.settings import Settings, SignOnSettings

OpenBrowser = Callable[..., TestClient]

GROUPS = {"vision": [{"team": "red"}], "speech": [{"team": "blue"}]}
PEOPLE: tuple[dict[str, Any], ...] = (
    {"sub": "ann", "preferred_username": "ann", "groups": ["vision"]},
    {"sub": "bob", "preferred_username": "bob", "groups": ["vision", "speech"]},
    {"sub": "eve", "preferred_username": "eve", "groups": []},
)


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    """A provider in a process of its own."""
    port = free_port()
    people = [word for person in PEOPLE for word in ("--user-claims", json.dumps(person))]
    command = [sys.executable, "-W", "ignore", "-m", "oidc_provider_mock", "--port", str(port), *people]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: _answers(port))
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def open_browser(issuer: str, token_settings: Settings, database: Database, tmp_path: Path) -> Iterator[OpenBrowser]:
    """Open a browser at a service that knows the provider."""
    secret_file = tmp_path / "secret"
    secret_file.write_text("s3cret\n")
    admin_token(database)
    for team in ("red", "blue"):
        make_team(database, team)
    with ExitStack() as stack:

        def opened(**changes: Any) -> TestClient:
            given = {"issuer": issuer, "public_url": BASE, "groups": GROUPS, "client_secret_file": secret_file}
            given |= changes
            settings = token_settings.model_copy(update={"sign_on": SignOnSettings.model_validate(given)})
            browser = TestClient(create_app(settings, database), base_url=BASE, headers=HTML, follow_redirects=False)
            return stack.enter_context(browser)

        yield opened


def _depart(browser: TestClient, query: str = "") -> str:
    """Follow the sign-in link and return the provider's address that it leads to."""
    answer = browser.get(f"/sign-in/sso{query}")
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def _vouched(url: str, subject: str) -> str:
    """Sign in on the provider's own page, and return where it sends the browser."""
    answer = httpx.post(url, data={"sub": subject}, follow_redirects=False)
    assert answer.status_code == 302, answer.text
    back = urlsplit(answer.headers["location"])
    assert f"{back.scheme}://{back.netloc}" == BASE
    return f"{back.path}?{back.query}"


def test_sign_in__leads_to_the_provider_and_back_to_where_one_was_going(
    open_browser: OpenBrowser,
) -> None:
    browser = open_browser()
    page = read(browser.get("/sign-in?next=/jobs").text)
    (link,) = [one for one in page.all("a") if one.attributes.get("href", "").startswith("/sign-in/sso")]
    url = browser.get(link.attributes["href"]).headers["location"]
    asked = parse_qs(urlsplit(url).query)
    assert asked["code_challenge_method"] == ["S256"]
    assert asked["redirect_uri"] == [f"{BASE}/sign-in/sso/callback"]
    answer = browser.get(_vouched(url, "ann"))
    assert (answer.status_code, answer.headers["location"]) == (303, "/jobs"), answer.text
    who = browser.get("/v1/whoami").json()
    assert (who["user"], who["team"], who["role"], who["is_admin"]) == ("ann", "red", "member", False)


def test_several_teams__are_chosen_from(open_browser: OpenBrowser) -> None:
    browser = open_browser()
    page = read(browser.get(_vouched(_depart(browser), "bob")).text)
    links = {one.text.strip(): one.attributes["href"] for one in page.one("main").all("a")}
    assert links.keys() == {"blue", "red"}
    url = browser.get(links["blue"]).headers["location"]
    assert browser.get(_vouched(url, "bob")).status_code == 303
    assert browser.get("/v1/whoami").json()["team"] == "blue"


def _refusal(answer: httpx.Response) -> str:
    assert "xsam=" not in answer.headers.get("set-cookie", "").replace("xsam-sso", "")
    return read(answer.text).one("p", role="alert").text


def test_without_a_team__one_stays_outside(open_browser: OpenBrowser) -> None:
    browser = open_browser()
    answer = browser.get(_vouched(_depart(browser), "eve"))
    assert answer.status_code == 401
    assert "none of your groups has a team here" in _refusal(answer)


def test_answer__counts_in_the_browser_that_began_and_once(open_browser: OpenBrowser) -> None:
    browser, other = open_browser(), open_browser()
    back = _vouched(_depart(browser), "ann")
    assert "not begun in this browser" in _refusal(other.get(back))
    _depart(other)
    assert "belongs to another sign-in" in _refusal(other.get(back))
    assert browser.get(back).status_code == 303
    assert "not begun in this browser" in _refusal(browser.get(back))


def test_code__is_worth_nothing_in_another_sign_in(open_browser: OpenBrowser) -> None:
    """The attacker's code with the victim's state: PKCE and the nonce tie it to the attacker's own browser."""
    attacker, victim = open_browser(), open_browser()
    stolen = parse_qs(urlsplit(_vouched(_depart(attacker), "bob")).query)["code"][0]
    state = parse_qs(urlsplit(_depart(victim)).query)["state"][0]
    answer = victim.get("/sign-in/sso/callback", params={"code": stolen, "state": state})
    assert answer.status_code == 401
    assert _refusal(answer)


def test_refusal_by_the_provider__is_told(open_browser: OpenBrowser) -> None:
    browser = open_browser()
    state = parse_qs(urlsplit(_depart(browser)).query)["state"][0]
    params = {"state": state, "error": "access_denied", "error_description": "You <b>may</b> not", "session_state": "x"}
    answer = browser.get("/sign-in/sso/callback", params=params)
    assert answer.status_code == 401
    assert "did not sign you in: You <b>may</b> not" in _refusal(answer)


def test_provider_that_is_away__is_named_and_tokens_go_on_working(open_browser: OpenBrowser) -> None:
    browser = open_browser(issuer="http://127.0.0.1:9")
    answer = browser.get("/sign-in/sso")
    assert answer.status_code == 502
    assert "127.0.0.1:9 does not answer" in _refusal(answer)
    assert read(answer.text).one("input", name="token")


def test_without_a_provider__there_is_no_such_way(guarded: TestClient) -> None:
    assert guarded.get("/sign-in/sso").status_code == 404
    assert "sso" not in guarded.get("/sign-in").text
