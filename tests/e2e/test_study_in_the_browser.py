"""A study of rho and k with control arms: begun in the form, watched while it trains, its winner promoted, one tab."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import chromium
from tests.support.served import PATIENCE_S, served

pytestmark = [pytest.mark.e2e, pytest.mark.ray, pytest.mark.slow, pytest.mark.browser, pytest.mark.timeout(600)]
TRAINED_MS = PATIENCE_S * 1000


def test_study__is_begun_watched_and_promoted_in_one_tab(tmp_path: Path) -> None:
    with (
        chromium() as browser,
        served(tmp_path / "data", "--num-cpus", "2", is_warmed=False) as service,
        browser.new_context(base_url=service.url, viewport={"width": 1280, "height": 900}) as context,
    ):
        page = context.new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)

        page.goto("/home")
        page.get_by_role("link", name="Studies").first.click()
        page.get_by_role("link", name="New study").first.click()
        _fill(page)
        expect(page.locator("#preview")).to_contain_text("15 trials")
        page.get_by_role("button", name="Submit").click()
        page.wait_for_url(lambda url: "/studies/" in url and not url.endswith("/new"))
        study_id = page.url.rsplit("/", 1)[1]

        page.evaluate("window.sameDocument = true")
        rows = page.locator("table.kept tbody tr")
        expect(rows.first).to_be_visible(timeout=TRAINED_MS)
        first_seen = rows.count()
        expect(page.locator("#facts h1 + *")).to_contain_text("succeeded", timeout=TRAINED_MS)
        expect(page.locator("#facts")).to_contain_text("15 of 15 trials")
        expect(page.locator("[data-says=kept]")).to_have_text("9 trials")
        assert first_seen < 9, "the trials were not watched: all had ended when the first was seen"
        expect(page.locator("#verdict ul.verdicts li").first).to_be_visible()
        expect(page.locator('[data-chart="map"] svg[role=img]')).to_be_visible()
        page.get_by_label("Phase").select_option("confirm")
        expect(page.locator("[data-says=kept]")).to_have_text("6 trials")
        assert page.evaluate("window.sameDocument") is True, "what was new came with a reload"

        told: dict[str, Any] = httpx.get(f"{service.url}/v1/studies/{study_id}").json()
        assert told["state"] == "succeeded"
        assert {arm["arm"] for arm in told["arms"]} == {"xsam", "sam", "sgd"}
        searched = [one for one in _trials(service.url, study_id) if (one["arm"], one["phase"]) == ("xsam", "search")]
        assert [set(trial["params"]) for trial in searched] == [{"optimizer.ascent_steps", "optimizer.rho"}] * 4
        for comparison in told["comparisons"]:
            assert comparison["sentence"] in page.locator("#verdict").inner_text()

        page.get_by_role("button", name="Promote…").click()
        dialog = page.locator("dialog[open]")
        dialog.get_by_label("Changes").fill("epochs: 2\nname: the winner")
        dialog.get_by_role("button", name="Queue the job").click()
        page.wait_for_url("**/jobs/*")
        expect(page.locator("main h1 + *")).to_contain_text("succeeded", timeout=TRAINED_MS)
        job = httpx.get(f"{service.url}/v1/jobs/{page.url.rsplit('/', 1)[1]}").json()
        winner = next(one for one in _trials(service.url, study_id) if one["number"] == told["best_trial"])
        assert (job["state"], job["name"], job["spec"]["epochs"]) == ("succeeded", "the winner", 2)
        assert job["spec"]["optimizer"]["rho"] == pytest.approx(winner["params"]["optimizer.rho"])
        assert complaints == []


def _fill(page: Page) -> None:
    """Ask for a small one: two rho for each of two k, the control arms, two fresh seeds for the best of each."""
    page.locator('button[value="preset-rho-k"]').click()
    values = page.locator('input[name="axis.2.values"]')
    expect(values).to_have_value("1, 2, 3, 5")
    values.fill("1, 2")
    page.locator('input[name="sampler.points"]').fill("2")
    page.locator('input[name="name"]').fill("rho and k")
    page.locator('input[type="checkbox"][name="control"]').check()
    page.locator('input[name="concurrency"]').fill("2")
    page.locator('input[name="base.epochs"]').fill("3")
    page.get_by_text("More about the study").click()
    page.locator('input[name="confirm_seeds"]').fill("2")


def _trials(url: str, study_id: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = httpx.get(f"{url}/v1/studies/{study_id}/trials").json()["items"]
    return items
