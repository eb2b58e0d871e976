"""Studies in a real browser: select a cell, mark a trial, promote; submit from the form, with a script and without."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page

from tests.support.browser import PATIENCE_MS, chromium
from tests.support.many_trials import study_of
from tests.support.studies import HandRunner, submit
from xsam.api.client import Client
from xsam.services.db.session import Database
from xsam.services.teams.roles import Actor

pytestmark = pytest.mark.browser
ME = Actor("root", "default")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all journeys."""
    with chromium() as browser:
        yield browser


def is_complaint(message: ConsoleMessage) -> bool:
    """Return whether a page under test says that something is wrong; a job's own page, where journeys end, is not."""
    return message.type == "error" and "/jobs/" not in message.location["url"].replace("/jobs/new", "")


@pytest.fixture
def open_page(browser: Browser, url: str) -> Iterator[Callable[..., Page]]:
    """Open a path of the service; whatever the page complains about, or asks of another host, fails the test."""
    said: list[str] = []
    contexts = []

    def opened(path: str, **options: Any) -> Page:
        context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda message: said.append(message.text) if is_complaint(message) else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: None if request.url.startswith(url) else said.append(request.url))
        page.goto(url + path)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not said


def test_study__brush_cell_and_promote(open_page: Callable[..., Page], database: Database, client: Client) -> None:
    study_id = study_of(database, 60, actor=ME, has_ended=True)
    page = open_page(f"/studies/{study_id}")
    kept = page.locator("[data-says=kept]")
    page.locator("table.kept tbody tr").first.wait_for()
    assert kept.inner_text() == "60 trials"

    cell = page.locator('[data-chart="map"] rect.cell:not(.is-blank)').first
    cell.click(force=True)  # its text lies on it
    page.wait_for_url("**brush=optimizer.rho**")
    assert "of 60 kept" in kept.inner_text()
    num_in_cell = page.locator("table.kept tbody tr").count()
    assert 0 < num_in_cell < 60
    page.reload()
    page.locator("table.kept tbody tr").first.wait_for()
    assert page.locator("table.kept tbody tr").count() == num_in_cell

    page.locator("table.kept tbody tr button").first.click()
    number = int(page.locator("table.kept tbody tr.own th").inner_text())
    page.get_by_role("button", name="Promote…").click()
    dialog = page.locator("dialog[open]")
    assert dialog.get_by_label("Trial").input_value() == str(number)
    dialog.get_by_label("Changes").fill("epochs: 12")
    dialog.get_by_role("button", name="Queue the job").click()
    page.wait_for_url("**/jobs/*")
    job = client.get(page.url.rsplit("/", 1)[1])
    assert job.spec.epochs == 12


def test_study__only_new_trials_come_without_a_reload(open_page: Callable[..., Page], database: Database) -> None:
    study_id = submit(database, actor=ME)
    runner = HandRunner.start(database, study_id)
    page = open_page(f"/studies/{study_id}")
    page.get_by_text("No trial has ended yet.").first.wait_for()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    runner.run({"optimizer.rho": 0.1}, 0.75)
    page.locator("table.kept tbody tr").first.wait_for()
    assert "75.0 %" in page.locator("table.kept tbody tr").inner_text()
    runner.fail(runner.claim(runner.propose({"optimizer.rho": 0.2})))
    page.locator('[data-says="kept"]').get_by_text("2 trials").wait_for()
    plots = [url for url in asked if "/plots" in url]
    assert plots
    assert all("after=" in url for url in plots)
    assert not [url for url in asked if "state=failed" in url]

    page.get_by_role("link", name="Rungs").click()
    chart = page.locator('[data-chart="rungs"] svg[role=img]')
    chart.wait_for()
    assert "1 trials reached" in (chart.get_attribute("aria-label") or "")


def test_form__submits_what_was_changed(open_page: Callable[..., Page], client: Client) -> None:
    page = open_page("/jobs/new")
    page.locator('input[name="epochs"]').fill("20")
    page.locator("#preview").get_by_text("880", exact=True).wait_for()
    page.locator('select[name="optimizer.variant"]').select_option("sam")
    page.locator('input[name="optimizer.alpha_max"]').wait_for(state="detached")
    assert page.locator('input[name="epochs"]').input_value() == "20"
    page.get_by_role("button", name="Submit").dblclick()
    page.wait_for_url(lambda url: "/jobs/" in url and not url.endswith("/new"))
    (job,) = client.list()
    assert (job.spec.epochs, job.spec.optimizer.variant) == (20, "sam")


def test_form__works_without_a_script(open_page: Callable[..., Page], client: Client) -> None:
    page = open_page("/studies/new", java_script_enabled=False)
    page.locator('button[value="preset-rho-k"]').click()
    page.locator('input[name="name"]').fill("without a script")
    page.get_by_role("button", name="Submit").click()
    study = client.studies.get(page.url.rsplit("/", 1)[1])
    assert (study.name, len(study.spec.space)) == ("without a script", 3)


def test_map__of_any_two_axes_is_divided_as_the_service_divides_it(
    open_page: Callable[..., Page], database: Database, client: Client
) -> None:
    study_id = study_of(database, 60, actor=ME)
    page = open_page(f"/studies/{study_id}?across=optimizer.base.lr")
    page.locator("table.kept tbody tr").first.wait_for()
    assert "lr (log)" in page.locator('[data-chart="map"] svg[role=img]').text_content()
    plots = client.studies.plots(study_id).model_dump(mode="json")
    made = page.evaluate(
        """async (plots) => {
          const script = document.querySelector('script[type="module"]').src;
          const { axesOf, mapOf, trialsOf } = await import(new URL("views/study/model.js", script).pathname);
          const axes = axesOf(plots);
          const own = trialsOf(plots.points, axes).filter(({ arm }) => arm === "xsam");
          const axis = (path) => axes.find(({ key }) => key === path);
          return mapOf(own, axis(plots.map.across), axis(plots.map.down), "max");
        }""",
        plots,
    )
    cells = [
        sorted((cell["column"], cell["row"], cell["best"], cell["num"]) for cell in one["cells"])
        for one in (made, plots["map"])
    ]
    assert cells[0] == cells[1]
    assert (made["columns"], made["rows"]) == (plots["map"]["columns"], plots["map"]["rows"])
