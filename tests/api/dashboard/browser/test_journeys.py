"""What people do in a browser, from beginning to end, with a real one."""

import re
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.api.dashboard.browser.conftest import Complaints, NewContext, Site, alive, port_of, serving, site_at
from tests.support.callers import ROOT, admin_token, make_member, make_team, make_token
from xsam.api.client import Client
from xsam.services.settings import ApiSettings
from xsam.services.teams import tokens
from xsam.services.teams.roles import Role

pytestmark = pytest.mark.browser


def _is_live(tab: Page) -> None:
    expect(tab.locator("#light[data-state=live]")).to_be_visible()


def test_job__is_seen_from_its_queue_to_its_end_without_a_reload(site: Site, tab: Page) -> None:
    job = site.submit("journey", epochs=3)
    tab.goto("/jobs?name=journey")
    tab.evaluate("window.isSame = true")
    _is_live(tab)
    row = tab.locator(f"tr[data-job='{job}']")
    expect(row).to_contain_text("queued")
    lease = site.runner.claim(job, placement=["n1"])
    expect(row).to_contain_text("running")
    site.runner.report(lease, 1)
    expect(row).to_contain_text("1/3")
    site.runner.report(lease, 2, 3)
    site.runner.complete(lease)
    expect(row).to_contain_text("succeeded")
    assert tab.evaluate("window.isSame")
    tab.goto("/cluster?range=1h")  # it has ended, and still one sees where it was
    lanes = tab.locator("[data-module='views/cluster']")
    lanes.get_by_role("button", name="as table").click()
    ended = lanes.locator("tbody tr", has_text="node-1 CPUs").filter(has_text="default, root, succeeded")
    expect(ended.first).to_be_visible()


def test_curves__grow_while_one_looks(site: Site, tab: Page) -> None:
    job = site.submit("growing", epochs=6)
    lease = site.runner.claim(job)
    site.runner.report(lease, 1, 2)
    tab.goto(f"/jobs/{job}")
    _is_live(tab)
    chart = tab.locator(".chart", has_text="Loss").first
    expect(chart.locator("svg.chart-svg")).to_be_visible()
    chart.get_by_role("button", name="as table").click()
    expect(chart.locator("tbody tr")).to_have_count(2)
    site.runner.report(lease, 3, 4)
    expect(chart.locator("tbody tr")).to_have_count(4)
    site.runner.complete(lease)
    expect(tab.locator(".head .state")).to_contain_text("succeeded")
    expect(chart.locator("tbody tr")).to_have_count(4)


def test_alpha__shows_the_search_that_is_picked_and_keeps_it_in_the_address(site: Site, tab: Page) -> None:
    job = site.submit("searching")
    lease = site.runner.claim(job)
    site.runner.report(lease, 1, 2, 3)
    tab.goto(f"/jobs/{job}?tab=alpha")
    expect(tab.get_by_text("Probe curve of step 21")).to_be_visible()
    tab.locator("[data-pick]").focus()
    tab.keyboard.press("ArrowLeft")
    expect(tab.get_by_text("Probe curve of step 11")).to_be_visible()
    expect(tab).to_have_url(re.compile("search=11"))
    tab.reload()
    expect(tab.get_by_text("Probe curve of step 11")).to_be_visible()
    expect(tab.locator("[data-edge]")).to_be_hidden()
    site.runner.report(lease, 10)
    expect(tab.locator("[data-edge]")).to_contain_text(
        "25 % of the 4 searches (0 % at its low end, 25 % at its high end)"
    )
    expect(tab.get_by_text("Probe curve of step 11")).to_be_visible()


def test_log__is_followed_found_in_and_linked_to(site: Site, tab: Page) -> None:
    job = site.submit("talking")
    lease = site.runner.claim(job)
    site.runner.write_log(lease, "".join(f"line {i}\n" for i in range(3000)))
    tab.goto(f"/jobs/{job}?tab=logs")
    expect(tab.locator(".log-lines")).to_contain_text("line 2999")
    assert tab.locator(".log-lines li").count() < 200
    site.runner.write_log(lease, "\x1b[31mRuntimeError: lost\x1b[0m")
    expect(tab.locator(".log-lines .ansi-red")).to_have_text("RuntimeError: lost")
    tab.get_by_label("Find in the log").fill("line 1234")
    expect(tab.locator("li.is-wanted")).to_contain_text("line 1234")
    address = tab.url
    tab.goto("/jobs")
    tab.goto(address)
    expect(tab.locator("li.is-wanted")).to_contain_text("line 1234")


def test_bulk_cancel__asks_in_numbers_and_keeps_what_was_refused_selected(site: Site, tab: Page) -> None:
    ids = [site.submit(f"bulk-{i}", labels={"exp": "bulk"}) for i in range(3)]
    tab.goto("/jobs?label=exp%3Dbulk")
    _is_live(tab)
    for job in ids:
        tab.check(f"tr[data-job='{job}'] input")
    expect(tab.locator("[data-number]")).to_have_text("3 selected")
    site.runner.run(ids[0])
    expect(tab.locator(f"tr[data-job='{ids[0]}']")).to_contain_text("succeeded")
    tab.get_by_role("button", name="Cancel…").click()
    dialog = tab.locator("#confirm")
    expect(dialog).to_contain_text("3 jobs")
    expect(dialog).to_contain_text("2 queued")
    dialog.get_by_role("button", name="Cancel the jobs").click()
    expect(tab.locator("#strip-done")).to_contain_text("2 jobs cancelled; 1 refused")
    expect(tab.locator(f"tr[data-job='{ids[0]}'] input")).to_be_checked()
    expect(tab.locator(f"tr[data-job='{ids[1]}']")).to_contain_text("cancelled")
    expect(tab.locator(f"tr[data-job='{ids[1]}'] input")).not_to_be_checked()


def test_filters__stand_in_the_address_and_back_brings_their_rows(site: Site, tab: Page) -> None:
    for name in ("find-a", "find-b"):
        site.submit(name)
    tab.goto("/jobs")
    tab.get_by_label("Name contains").fill("find-a")
    tab.keyboard.press("Enter")
    expect(tab.locator("tbody tr")).to_have_count(1)
    address = tab.url
    tab.get_by_label("By", exact=True).fill("nobody")
    tab.keyboard.press("Enter")
    expect(tab.locator(".empty")).to_contain_text("No job matches")
    tab.go_back()
    expect(tab.locator("tbody tr")).to_have_count(1)
    tab.go_forward()
    expect(tab.locator(".empty")).to_be_visible()
    other = tab.context.new_page()
    other.goto(address)
    expect(other.locator("tbody tr")).to_have_count(1)


def test_new_jobs__wait_until_one_wants_them(site: Site, tab: Page) -> None:
    first = site.submit("older")
    tab.goto("/jobs")
    _is_live(tab)
    newer = site.submit("newer")
    expect(tab.locator("#strip-fresh")).to_contain_text("1 new job")
    assert tab.locator("tbody tr").first.get_attribute("data-job") == first
    tab.locator("#strip-fresh button").click()
    expect(tab.locator("tbody tr").first).to_have_attribute("data-job", newer)
    expect(tab.locator("#strip-fresh")).to_have_count(0)


def test_restart__keeps_scroll_and_focus_and_brings_what_was_missed(
    tmp_path: Path, migrated_file: Path, new_context: NewContext, complaints: Complaints
) -> None:
    with site_at(tmp_path / "data", migrated_file, ApiSettings()) as site:
        url, settings = site.url, site.settings
        ids = [site.submit(f"job-{i:02}") for i in range(40)]
        tab = new_context(url).new_page()
        tab.goto("/jobs")
        _is_live(tab)
        tab.evaluate("window.isSame = true; document.querySelectorAll('tr[data-row] a')[30].focus()")
        focused = tab.evaluate("document.activeElement.href")
        scrolled = tab.evaluate("scrollY")
        complaints.is_down = True
    expect(tab.locator("#light[data-state=reconnecting]")).to_be_visible()
    database = site.database
    lease = site.runner.claim(ids[10])
    site.runner.report(lease, 1)
    with serving(settings, database, port_of(url)):
        _is_live(tab)
        expect(tab.locator(f"tr[data-job='{ids[10]}']")).to_contain_text("running")
        assert tab.evaluate("window.isSame")
        assert tab.evaluate("document.activeElement.href") == focused
        assert tab.evaluate("scrollY") == scrolled > 0
        tab.close()
    database.dispose()


def test_tabs__share_one_stream(site: Site, new_context: NewContext) -> None:
    alive(site.database)
    context = new_context(site.url)
    asked: list[str] = []
    context.on("request", lambda request: asked.append(request.url) if "/v1/changes" in request.url else None)
    job = site.submit("shared")
    tabs = [context.new_page() for _ in range(20)]
    for tab in tabs:
        tab.goto("/jobs?name=shared")
    for tab in tabs:
        _is_live(tab)
    assert _num_streams(site) == 1
    site.runner.claim(job)
    tabs[0].bring_to_front()
    expect(tabs[0].locator(f"tr[data-job='{job}']")).to_contain_text("running")


def _num_streams(site: Site) -> int:
    text = site.http.get("/metrics").text
    return int(float(re.search(r"^xsam_\w*streams\w*(?:\{[^}]*\})? ([\d.]+)$", text, re.M)[1]))  # type: ignore[index]


def test_sign_in__leads_on_and_a_revoked_token_is_out_within_seconds(
    guarded_site: Site, new_context: NewContext, complaints: Complaints
) -> None:
    site = guarded_site
    admin_token(site.database)
    make_team(site.database, "red")
    make_member(site.database, "ann", "red", Role.MEMBER)
    token_id, text = make_token(site.database, "ann", "red")
    tab = new_context(site.url).new_page()
    tab.goto("/queue")
    expect(tab).to_have_url(re.compile(r"/sign-in\?next=/queue"))
    tab.get_by_label("Token").fill("wrong")
    complaints.allowed = ("401",)
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("alert")).to_be_visible()
    tab.get_by_label("Token").fill(text)
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("heading", name="Queue")).to_be_visible()
    _is_live(tab)
    assert text not in str(tab.context.cookies()) + tab.evaluate("JSON.stringify({...localStorage, ...sessionStorage})")
    with site.database.unit_of_work() as session:
        tokens.revoke(session, ROOT, token_id)
    expect(tab.locator("#strip-signed-out")).to_be_visible()
    tab.locator("#strip-signed-out a").click()
    expect(tab).to_have_url(re.compile(r"/sign-in\?next="))


def test_program__is_confirmed_by_whoever_comes_from_the_sign_in(guarded_site: Site, new_context: NewContext) -> None:
    site = guarded_site
    admin_token(site.database)
    make_team(site.database, "red")
    make_member(site.database, "ann", "red", Role.MEMBER)
    _, text = make_token(site.database, "ann", "red")
    with Client(site.url) as client:
        begun = client.device_login.begin("xsam on laptop")
        tab = new_context(site.url).new_page()
        tab.goto(begun.verification_uri_complete)
        tab.get_by_label("Token").fill(text)
        tab.keyboard.press("Enter")
        expect(tab.get_by_role("heading", name="Let this program speak for you?")).to_be_visible()
        expect(tab.locator(".facts")).to_contain_text(begun.user_code)
        expect(tab.locator(".facts")).to_contain_text("xsam on laptop")
        tab.get_by_role("button", name="Confirm").click()
        expect(tab.get_by_role("heading", name="Confirmed")).to_be_visible()
        granted = client.device_login.ask(begun.device_code)
    with Client(site.url, token=granted.access_token) as client:
        assert client.whoami().user == "ann"


def test_keyboard__is_enough_to_find_open_and_cancel(site: Site, tab: Page) -> None:
    job = site.submit("by-keys")
    tab.goto("/home")
    tab.keyboard.press("g")
    tab.keyboard.press("j")
    expect(tab.get_by_role("heading", name="Jobs")).to_be_visible()
    tab.keyboard.press("/")
    tab.keyboard.type("by-keys")
    tab.keyboard.press("Enter")
    tab.wait_for_url("**by-keys*")
    expect(tab.locator("tbody tr")).to_have_count(1)
    tab.locator("h1").click()
    tab.keyboard.press("j")
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("heading", name="by-keys")).to_be_visible()
    tab.get_by_role("button", name="Cancel…").focus()
    tab.keyboard.press("Enter")
    expect(tab.locator("#confirm")).to_be_visible()
    tab.keyboard.press("Escape")
    expect(tab.locator("#confirm")).to_be_hidden()
    tab.get_by_role("button", name="Cancel…").focus()
    tab.keyboard.press("Enter")
    tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    expect(tab.locator(".head .state")).to_contain_text("cancelled")
    assert site.http.get(f"/v1/jobs/{job}").json()["state"] == "cancelled"


def test_without_javascript__lists_details_and_verbs_work(site: Site, new_context: NewContext) -> None:
    job = site.submit("plain")
    lease = site.runner.claim(job)
    site.runner.report(lease, 1, 2)
    site.runner.write_log(lease, "plain text")
    tab = new_context(site.url, java_script_enabled=False).new_page()
    tab.goto("/jobs")
    tab.get_by_label("Name contains").fill("plain")
    tab.get_by_role("button", name="Apply").click()
    tab.get_by_role("link", name="plain", exact=True).click()
    expect(tab.locator("table tbody tr").first).to_contain_text("1")
    tab.get_by_role("link", name="Logs").click()
    expect(tab.locator("pre.log")).to_contain_text("plain text")
    tab.get_by_role("button", name="Cancel…").click()
    expect(tab.locator(".head .state")).to_contain_text("cancel asked")


def test_dispatcher_lost__is_said_and_everything_goes_on(
    tmp_path: Path, migrated_file: Path, new_context: NewContext
) -> None:
    with site_at(tmp_path / "data", migrated_file, ApiSettings()) as site:
        with site.database.engine.begin() as connection:
            connection.exec_driver_sql("delete from dispatchers")
        job = site.submit("kept")
        tab = new_context(site.url).new_page()
        tab.goto("/jobs")
        expect(tab.locator(".strip-warning")).to_contain_text("No dispatcher answers")
        expect(tab.locator(f"tr[data-job='{job}']")).to_be_visible()
        tab.close()


def test_pause__holds_the_view_until_it_goes_on(site: Site, tab: Page) -> None:
    job = site.submit("held")
    tab.goto("/jobs?name=held")
    _is_live(tab)
    tab.keyboard.press("p")
    expect(tab.locator("#light")).to_contain_text("paused")
    site.runner.claim(job)
    tab.wait_for_timeout(1500)
    expect(tab.locator(f"tr[data-job='{job}']")).to_contain_text("queued")
    tab.keyboard.press("p")
    expect(tab.locator(f"tr[data-job='{job}']")).to_contain_text("running")


def test_idle_policy__is_set_by_keyboard(site: Site, tab: Page) -> None:
    make_team(site.database, "green")
    tab.goto("/admin/teams/green")
    panel = tab.locator("section", has=tab.get_by_role("heading", name="Idle GPUs"))
    panel.locator("summary").focus()
    tab.keyboard.press("Enter")
    expect(panel.get_by_label("What follows")).to_be_visible()
    assert Axe().run(tab, context="form[action$='/idle']").response["violations"] == []
    for keys in ("Tab", "e", "Tab", "30", "Tab", "Tab", "2", "Enter"):
        tab.keyboard.type(keys) if len(keys) == 1 or keys.isdigit() else tab.keyboard.press(keys)
    expect(panel).to_contain_text("2 requeues in a row")
    with Client(site.url) as client:
        policy = client.admin.team("green").idle
    assert (policy.then, policy.after_s, policy.grace_s, policy.max_requeues) == ("end", 1800, None, 2)
