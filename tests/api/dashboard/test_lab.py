"""The lab in the browser: the figures, and a run with its picture."""

from fastapi.testclient import TestClient

from tests.api.dashboard.conftest import OWN, Look, form_token
from tests.support import lab_runs
from xsam.services.db.session import Database
from xsam.services.teams.roles import Actor


def test_list__leads_to_a_run_with_its_verdict(browser: TestClient, look: Look, database: Database) -> None:
    run_id = lab_runs.concluded(database, Actor("ann", "default"))
    page = look("/lab")
    assert f"/lab/{run_id}" in [one.attributes.get("href") for one in page.all("a")]
    assert "holds" in page.one("main").text


def test_run__has_picture_caption_and_data(browser: TestClient, look: Look, database: Database) -> None:
    run_id = lab_runs.concluded(database, Actor("ann", "default"))
    page = look(f"/lab/{run_id}")
    assert "Directions after k ascent steps" in page.one("h1").text
    assert "holds" in page.one("main").text
    picture = browser.get(page.one("img").attributes["src"])
    assert picture.headers["content-type"] == "image/svg+xml"
    assert 'aria-label="quality at theta_0"' in picture.text
    assert "g_1 is ahead of g_2 by +0.10" in page.one("figcaption").text
    table = browser.get(f"/v1/lab/runs/{run_id}/table")
    assert table.headers["content-type"].startswith("text/csv")
    assert len(table.text.splitlines()) == 1 + len(lab_runs.QUALITY["rows"])


def test_run__that_goes_on_says_what_it_waits_for(browser: TestClient, look: Look) -> None:
    run_id = browser.post("/v1/lab/runs", json={"figure": "1b"}).json()["id"]
    page = look(f"/lab/{run_id}")
    assert "waiting" in page.one("main").text
    assert browser.get(f"/v1/lab/runs/{run_id}/table").status_code == 404


def test_job__is_looked_at_by_a_button_once_it_has_a_checkpoint(
    browser: TestClient, look: Look, database: Database
) -> None:
    without = browser.post("/v1/jobs", json={}).json()["id"]
    assert not look(f"/jobs/{without}").all("form", action=f"/jobs/{without}/plane")
    job_id = lab_runs.with_checkpoint(database, Actor("ann", "default"))
    form = look(f"/jobs/{job_id}").one("form", action=f"/jobs/{job_id}/plane")
    answer = browser.post(f"/jobs/{job_id}/plane", data={"form_token": form_token(form)}, headers=OWN)
    assert answer.status_code == 303
    run = browser.get(answer.headers["location"].replace("/lab/", "/v1/lab/runs/")).json()
    assert (run["figure"], run["spec"]["job"], run["stages"][0]["kind"]) == ("1a", job_id, "plane")
    looking = browser.post("/v1/jobs", json={"plane": {"job": job_id}}).json()["id"]
    page = look(f"/jobs/{looking}")
    assert page.all("a", href=f"/jobs/{job_id}")
    assert not page.all("form", action=f"/jobs/{looking}/plane")
