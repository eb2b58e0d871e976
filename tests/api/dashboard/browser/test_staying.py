"""What a page outlives: another replica, a restart, a new release, a sign-out."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest
from playwright.sync_api import Page, expect

from tests.api.dashboard.browser.conftest import PATIENCE_MS, Complaints, NewContext, Site, alive, port_of, serving
from tests.support.callers import ROOT, admin_token, make_member, make_team, make_token
from tests.support.plain_proxy import plain_proxy
from xsam.api.dashboard import assets
from xsam.services.db.session import Database
from xsam.services.teams import tokens
from xsam.services.teams.roles import Role

pytestmark = pytest.mark.browser


def _is_live(tab: Page) -> None:
    expect(tab.locator("#light[data-state=live]")).to_be_visible(timeout=PATIENCE_MS)


@contextmanager
def _replica(site: Site) -> Iterator[str]:
    """Serve the site's rows by another app with connections of its own."""
    database = Database(site.settings.database_url)
    with serving(site.settings, database) as url:
        yield url
    database.dispose()


def test_replicas__show_each_others_changes_and_stand_in_for_each_other(
    site: Site, new_context: NewContext, complaints: Complaints
) -> None:
    alive(site.database)
    jobs = [site.submit("replicas") for _ in range(2)]
    with ExitStack() as stack:
        first, second = (ExitStack(), ExitStack())
        stack.enter_context(first)
        stack.enter_context(second)
        urls = [one.enter_context(_replica(site)) for one in (first, second)]
        address = stack.enter_context(plain_proxy([port_of(url) for url in urls]))
        tab = new_context(address).new_page()
        tab.goto("/jobs?name=replicas")
        tab.evaluate("window.isSame = true")
        _is_live(tab)

        # Told to one replica; the stream is at one of the two, whichever.
        for url, job in zip(urls, jobs, strict=True):
            other = new_context(url).new_page()
            other.goto(f"/jobs/{job}")
            other.get_by_role("button", name="Pause").click()
            expect(other.locator(".head .state")).to_contain_text("paused")
            other.close()
            expect(tab.locator(f"tr[data-job='{job}']")).to_contain_text("paused", timeout=5000)

        complaints.is_down = True
        first.close()  # half of the time the one with the stream, and it must not matter
        site.http.post(f"/v1/jobs/{jobs[0]}/cancel").raise_for_status()
        expect(tab.locator(f"tr[data-job='{jobs[0]}']")).to_contain_text("cancelled")
        _is_live(tab)
        tab.get_by_label("Name contains").fill("replicas")
        tab.keyboard.press("Enter")
        expect(tab).to_have_url(re.compile("q=replicas"))
        expect(tab.locator("tbody tr")).to_have_count(2)
        assert tab.evaluate("window.isSame")
        tab.close()


def test_new_version__is_said_and_loaded_only_on_wish(
    site: Site, new_context: NewContext, complaints: Complaints, monkeypatch: pytest.MonkeyPatch
) -> None:
    complaints.allowed = ("404",)  # how a tab learns that its files are of another release
    complaints.is_down = True
    with _replica(site) as url:
        tab = new_context(url).new_page()
        tab.goto("/jobs/new")
        tab.locator('input[name="name"]').fill("half")
        _is_live(tab)
    newer = replace(assets.load(), digest="abcdef012345")
    monkeypatch.setattr(assets, "load", lambda: newer)
    with serving(site.settings, site.database, port_of(url)):
        _is_live(tab)
        expect(tab.locator("#strip-release")).to_contain_text("A new version runs.")
        assert tab.locator('input[name="name"]').input_value() == "half"
        tab.close()


@pytest.mark.parametrize("is_sent", [False, True], ids=["while it is filled in", "when it is sent"])
def test_form__survives_signing_out(
    guarded_site: Site, new_context: NewContext, complaints: Complaints, is_sent: bool
) -> None:
    complaints.allowed = ("401",)
    site = guarded_site
    alive(site.database)
    admin_token(site.database)
    make_team(site.database, "red")
    make_member(site.database, "ann", "red", Role.MEMBER)
    token_id, text = make_token(site.database, "ann", "red")
    tab = new_context(site.url).new_page()
    tab.goto("/jobs/new")
    _sign_in(tab, text)
    tab.locator('input[name="epochs"]').fill("7")
    expect(tab.locator("#preview")).to_contain_text("308")
    with site.database.unit_of_work() as session:
        tokens.revoke(session, ROOT, token_id)
    tab.locator('input[name="name"]').fill("half")
    if is_sent:
        tab.get_by_role("button", name="Submit").click()
    else:
        tab.locator("#strip-signed-out a").click()
    expect(tab).to_have_url(re.compile(r"/sign-in\?next="))
    _sign_in(tab, make_token(site.database, "ann", "red")[1])
    expect(tab.locator('input[name="name"]')).to_have_value("half")
    expect(tab.locator('input[name="epochs"]')).to_have_value("7")
    tab.get_by_role("button", name="Submit").click()
    expect(tab.get_by_role("heading", name="half")).to_be_visible()


def _sign_in(tab: Page, token: str) -> None:
    tab.get_by_label("Token").fill(token)
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("heading", name="New job")).to_be_visible()
