"""Pages of one app without a network, and people who look at them."""

from collections.abc import Callable, Iterator

import pytest
from fastapi.testclient import TestClient

from tests.api.dashboard.reading import Element, read
from tests.api.token_service import Callers
from xsam.api.app import create_app
from xsam.services.db.session import Database
from xsam.services.settings import ApiSettings, Settings

BASE = "http://127.0.0.1:8042"
HTML = {"Accept": "text/html,application/xhtml+xml"}
OWN = {"Sec-Fetch-Site": "same-origin", "Origin": BASE}
"""What a browser sends with a form of our own pages."""

Look = Callable[[str], Element]


@pytest.fixture
def browser(settings: Settings, database: Database) -> Iterator[TestClient]:
    """A browser at a service that asks for no token."""
    with TestClient(create_app(settings, database), base_url=BASE, headers=HTML, follow_redirects=False) as client:
        yield client


@pytest.fixture
def look(browser: TestClient) -> Look:
    """Open a path and return the page."""

    def opened(path: str) -> Element:
        answer = browser.get(path)
        assert answer.status_code == 200, (path, answer.text[-600:])
        return read(answer.text)

    return opened


@pytest.fixture
def token_settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"api": ApiSettings(auth="token")})


@pytest.fixture
def guarded(token_settings: Settings, database: Database) -> Iterator[TestClient]:
    """A browser at a service that asks for a token."""
    app = create_app(token_settings, database)
    with TestClient(app, base_url=BASE, headers=HTML, follow_redirects=False) as client:
        yield client


@pytest.fixture
def sign_in(guarded: TestClient, callers: Callers) -> Callable[[str], TestClient]:
    """Sign the browser in as one of the callers."""

    def signed(caller: str) -> TestClient:
        guarded.cookies.clear()
        answer = guarded.post("/sign-in", data={"token": callers.valid[caller]}, headers=OWN)
        assert answer.status_code == 303, answer.text
        return guarded

    return signed


def form_token(page: Element) -> str:
    """Return what the forms of a page carry."""
    return page.all("input", name="form_token")[0].attributes["value"] if page.all("input", name="form_token") else ""
