"""What all pages share: where the address leads, headers, files, errors."""

import httpx
import pytest
from fastapi import FastAPI

from tests.api.dashboard.reading import read
from xsam.api.app import create_app
from xsam.api.dashboard import assets
from xsam.api.dashboard.security import own_path
from xsam.services.db.session import Database
from xsam.services.settings import PageSettings, Settings

HTML = {"Accept": "text/html,application/xhtml+xml"}


def test_address__leads_browsers_to_home_and_programs_to_the_api(http: httpx.Client) -> None:
    answer = http.get("/", headers=HTML)
    assert (answer.status_code, answer.headers["location"]) == (307, "/home")
    answer = http.get("/")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_pages__carry_the_policy_and_no_way_around_it(http: httpx.Client) -> None:
    for path in ("/jobs", "/nowhere"):
        headers = http.get(path, headers=HTML).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "require-trusted-types-for 'script'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "same-origin"


def test_assets__are_named_by_content_kept_for_ever_and_packed(http: httpx.Client) -> None:
    page = read(http.get("/jobs", headers=HTML).text)
    named = [one.attributes["href"] for one in page.all("link")] + [one.attributes["src"] for one in page.all("script")]
    assert named
    for url in named:
        answer = http.get(url)
        assert answer.status_code == 200, url
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.content == http.get(url, headers={"Accept-Encoding": "identity"}).content


@pytest.mark.parametrize("path", ["/assets/000000000000/app.css", "{base}/../app.css", "{base}/none.js", "{base}/"])
def test_assets__are_those_of_this_release_only(http: httpx.Client, path: str) -> None:
    assert http.get(path.format(base=assets.load().base)).status_code == 404


def test_error__is_a_page_for_browsers_and_a_problem_for_scripts(http: httpx.Client) -> None:
    answer = http.get("/jobs?bogus=<b>", headers=HTML)
    page = read(answer.text)
    assert answer.status_code == 422
    assert "bogus" in page.one("main").text
    assert not page.one("main").all("b", class_="")
    assert answer.headers["x-request-id"] in page.one("main").text
    answer = http.get("/jobs?bogus=1", headers={**HTML, "X-Part": "main"})
    assert answer.json()["code"] == "validation_failed"
    assert http.get("/v1/nowhere", headers=HTML).json()["code"] == "not_found"


def test_part__is_one_block_with_the_pages_title(http: httpx.Client) -> None:
    answer = http.get("/jobs", headers={**HTML, "X-Part": "main"})
    assert answer.headers["x-part"] == "main"
    assert answer.headers["x-title"].startswith("Jobs")
    part = read(answer.text)
    assert part.one("h1").text == "Jobs"
    assert not part.all("html")


def test_page__can_be_switched_off(settings: Settings, database: Database) -> None:
    app: FastAPI = create_app(settings.model_copy(update={"page": PageSettings(enabled=False)}), database)
    assert not any(getattr(route, "path", "") == "/jobs" for route in app.state.routes)


@pytest.mark.parametrize(
    ("wanted", "path"),
    [
        ("/jobs?state=failed&page=2", "/jobs?state=failed&page=2"),
        (None, "/home"),
        ("", "/home"),
        ("https://evil.example/", "/home"),
        ("//evil.example", "/home"),
        ("/\\evil.example", "/home"),
        ("/jobs\\..\\x", "/home"),
        ("/\t/evil.example", "/home"),
        ("javascript:alert(1)", "/home"),
    ],
)
def test_own_path__never_leaves_this_host(wanted: str | None, path: str) -> None:
    assert own_path(wanted) == path
