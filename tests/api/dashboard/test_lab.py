"""The lab in the browser: the figures, and a run with its picture."""

from collections.abc import Callable

from fastapi.testclient import TestClient

from tests.api.dashboard.conftest import OWN, Look, form_token
from tests.api.dashboard.reading import read
from tests.api.dashboard.test_forms import inputs
from tests.api.token_service import Callers
from tests.support import lab_runs
from xsam.services.db.session import Database
from xsam.services.lab import service
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


def test_form__shows_what_a_figure_takes_and_begins_it_once(browser: TestClient, look: Look) -> None:
    assert look("/lab").all("a", href="/lab/new?figure=3b")
    page = look("/lab/new?figure=3b")
    assert "each method at its best rho" in page.one("main").text
    trials = page.one("aside", class_="preview").text
    counterparts = {one.attributes["value"]: one for one in page.one("select", id="f-counterparts").all("option")}
    assert list(counterparts) == ["", "true", "false"]
    given = {**inputs(page), "counterparts": "", "seeds": "4", "rhos": "[0.05, 0.1]", "base": "{epochs: 2}"}
    shown = browser.post("/lab/new", data={**given, "action": "refresh"}, headers=OWN)
    assert shown.status_code == 200
    assert read(shown.text).one("aside", class_="preview").text != trials
    begun = [browser.post("/lab/new", data={**given, "action": "submit"}, headers=OWN) for _ in range(2)]
    assert {one.status_code for one in begun} == {303}
    (where,) = {one.headers["location"] for one in begun}
    spec = browser.get(where.replace("/lab/", "/v1/lab/runs/")).json()["spec"]
    assert (spec["figure"], spec["scale"], spec["seeds"], spec["rhos"]) == ("3b", "digits", 4, [0.05, 0.1])
    assert (spec["base"], spec["counterparts"]) == ({"epochs": 2}, None)


def test_form__names_the_field_that_is_refused(browser: TestClient, look: Look) -> None:
    given = {**inputs(look("/lab/new?figure=2")), "rhos": "[0.1, 0.2]"}
    answer = browser.post("/lab/new", data={**given, "action": "submit"}, headers=OWN)
    assert answer.status_code == 422
    assert "only figures 3b and 3c vary rho" in read(answer.text).one("p", id="f-rhos-error").text
    assert browser.get("/v1/lab/runs").json()["items"] == []


def test_run__is_cancelled_and_taken_up_again_by_buttons(browser: TestClient, look: Look, database: Database) -> None:
    run_id = browser.post("/v1/lab/runs", json={"figure": "4", "scale": "digits"}).json()["id"]
    assert not look(f"/lab/{run_id}").all("form", action=f"/lab/{run_id}/resume")
    with database.unit_of_work() as session:
        service.get(session, run_id, lock=True).end("failed", failure="stage frequencies: failed")
    told = {"resume": "running", "cancel": "cancelled"}
    for verb, state in told.items():
        form = look(f"/lab/{run_id}").one("form", action=f"/lab/{run_id}/{verb}")
        answer = browser.post(f"/lab/{run_id}/{verb}", data={"form_token": form_token(form)}, headers=OWN)
        assert answer.headers["location"] == f"/lab/{run_id}"
        assert browser.get(f"/v1/lab/runs/{run_id}").json()["state"] == state
    assert not look(f"/lab/{run_id}").all("form", action=f"/lab/{run_id}/cancel")
    assert browser.post(f"/lab/{run_id}/explode", data={"form_token": ""}, headers=OWN).status_code == 404


def test_run__of_another_team_is_not_there(
    sign_in: Callable[[str], TestClient], callers: Callers, database: Database
) -> None:
    run_id = lab_runs.concluded(database, Actor("ann", "red"))
    with database.unit_of_work() as session:
        service.get(session, run_id, lock=True).take_up()
    for caller, status in (("stranger", 404), ("viewer", 403), ("member", 303)):
        signed = sign_in(caller)
        token = form_token(read(signed.get("/home").text))
        answer = signed.post(f"/lab/{run_id}/cancel", data={"form_token": token}, headers=OWN)
        assert answer.status_code == status, (caller, answer.text[:300])
    assert signed.get(f"/v1/lab/runs/{run_id}").json()["state"] == "cancelled"


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
