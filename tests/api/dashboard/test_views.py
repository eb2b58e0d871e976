"""Every view, whoever looks: it renders, leads nowhere dead, escapes what people wrote, and shows nobody else's."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import urljoin

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update
from sqlalchemy.exc import OperationalError

from tests.api.dashboard.conftest import Look
from tests.api.dashboard.reading import Element, read
from tests.api.token_service import Callers
from tests.support import jobs, planning
from tests.support.row_runner import RowRunner
from tests.support.studies import HandRunner, submit
from xsam.api.dashboard.views.job import TABS
from xsam.services.cluster.service import NodeSeen
from xsam.services.db.clock import db_now
from xsam.services.db.session import Database
from xsam.services.jobs import verbs
from xsam.services.jobs.models import Job, JobAttempt
from xsam.services.jobs.schemas import JobUpdate
from xsam.services.teams.roles import Actor

LISTS = (
    "/home",
    "/jobs",
    "/queue",
    "/cluster",
    "/usage",
    "/lab",
    "/admin/tokens",
    "/admin/audit",
    "/admin/teams",
    "/admin/users",
    "/device",
)
VIEWS = (
    *LISTS,
    "/jobs?state=queued&state=running",
    "/jobs?label=a%3Db",
    "/jobs/compare",
    "/usage?by=user&unit=cpu",
    "/usage?by=optimizer&unit=cpu",
    "/usage?by=study",
    "/cluster?range=7d",
    "/jobs/compare?id={job}&diff=false",
    *(f"/jobs/{{job}}?tab={tab}" for tab in TABS),
)
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{7*7}}${7*7}",
    "javascript:alert(1)",
    "' autofocus onfocus=alert(1) x='",
    "\u202egnp.exe",
)
_DANGEROUS = ("script", "iframe", "object", "embed", "base", "style")


@pytest.fixture
def job(browser: TestClient, runner: RowRunner, small_cluster: None) -> str:
    """A job with everything: epochs, searches, a log, a failure and a second attempt that runs."""
    found = browser.post("/v1/jobs", json={"name": "first", "labels": {"a": "b"}}).json()["id"]
    lease = runner.claim(found)
    runner.report(lease, 1, 2)
    runner.write_log(lease, "hello\n\x1b[31mred\x1b[0m")
    runner.fail(lease, "out of luck", is_retry=True)
    lease = runner.claim(found)
    runner.report(lease, 3)
    runner.write_log(lease, "again")
    return str(found)


@pytest.mark.parametrize("view", VIEWS)
def test_views__render_as_page_and_as_part(browser: TestClient, look: Look, job: str, view: str) -> None:
    path = view.format(job=job)
    page = look(path)
    assert len(page.all("h1")) == 1
    assert page.one("html").attributes["lang"] == "en"
    assert page.one("title").text.endswith("XSAM")
    assert len({one.attributes["id"] for one in page.walk() if "id" in one.attributes}) == sum(
        "id" in one.attributes for one in page.walk()
    )
    for cell in page.all("th"):
        assert cell.attributes.get("scope") in ("col", "row"), cell.text
    part = browser.get(path, headers={"X-Part": "main"})
    assert read(part.text).one("h1").text == page.one("h1").text


def test_links__all_lead_somewhere(browser: TestClient, look: Look, job: str) -> None:
    paths = [view.format(job=job) for view in ("/home", "/jobs", "/jobs/{job}", "/queue", "/cluster", "/usage")]
    links = {urljoin(path, one.attributes["href"]) for path in paths for one in look(path).all("a")}
    # Where the forms of jobs and studies lead is tested beside them.
    found = [link for link in links if not link.startswith(("/jobs/new", "/studies"))]
    assert len(found) > 30
    for link in found:
        assert browser.get(link).status_code == 200, link


def test_files__are_saved_and_never_shown_as_a_page(browser: TestClient, look: Look, job: str) -> None:
    link = look(f"/jobs/{job}?tab=files").one("tbody").all("a")[0].attributes["href"]
    headers = browser.get(link).headers
    assert headers["content-disposition"].startswith("attachment")
    assert headers["content-security-policy"] == "sandbox"
    assert headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize("view", LISTS)
def test_unknown_parameters__are_refused(browser: TestClient, view: str) -> None:
    answer = browser.get(f"{view}?stat=failed")
    assert answer.status_code == 422
    assert "stat" in read(answer.text).one("main").text


@pytest.mark.parametrize("view", LISTS)
def test_empty_lists__say_what_fills_them(look: Look, view: str) -> None:
    page = look(view)
    assert (
        page.all("p", class_="empty")
        or page.all("p", class_="quiet")
        or view in ("/usage", "/admin/audit", "/admin/users")
    )


def test_empty_by_filter__offers_all(look: Look, job: str) -> None:
    text = look("/jobs?name=none").one("p", class_="empty")
    assert text.text == "No job matches. Show all"
    assert text.one("a").attributes["href"] == "/jobs"


def test_pages_of_jobs__are_numbered_and_lead_on_and_back(look: Look, database: Database) -> None:
    names = [f"page-{number}" for number in range(5)]
    for name in names:
        jobs.submit(database, name=name)

    def shown(page: Element) -> list[str]:
        return [row.one("th").one("a").text for row in page.one("tbody").all("tr")]

    first = look("/jobs?limit=2&state=queued")
    assert first.one("nav", class_="pager").text == "page 1 of 3 · 5 jobs next →"
    pages = [first]
    while following := pages[-1].all("a", rel="next"):
        pages.append(look(urljoin("/jobs", following[0].attributes["href"])))
    assert [name for page in pages for name in shown(page)] == names[::-1]
    assert pages[-1].one("nav", class_="pager").text == "⇤ first ← previous page 3 of 3 · 5 jobs"
    back = look(urljoin("/jobs", pages[-1].one("a", rel="prev").attributes["href"]))
    assert shown(back) == shown(pages[1])
    assert "page 2 of 3" in back.one("nav", class_="pager").text
    assert shown(look(urljoin("/jobs", back.one("a", rel="prev").attributes["href"]))) == shown(first)


@pytest.mark.parametrize("text", HOSTILE)
def test_text_of_people__is_never_markup(
    browser: TestClient, look: Look, runner: RowRunner, database: Database, small_cluster: None, text: str
) -> None:
    found = browser.post("/v1/jobs", json={}).json()["id"]
    with database.unit_of_work() as session:  # REST takes no such name; an older release may have
        row = session.get_one(Job, found)
        row.name, row.submitted_by, row.labels = text, text, {"note": text}
    lease = runner.claim(found)
    runner.report(lease, 1)
    runner.write_log(lease, f"{text}\n{'x' * 10_000}")
    runner.fail(lease, text)
    paths = ["/home", "/jobs", "/queue", f"/jobs/compare?id={found}&diff=false"]
    for path in [*paths, *(f"/jobs/{found}?tab={tab}" for tab in TABS)]:
        page = look(path)
        _check_harmless(page)
        shown = text.replace("\u202e", "\u2426")
        if path == "/jobs":
            assert page.one("table").one("th", class_="name").text == shown
        assert "\u202e" not in page.text
        assert "49" not in [one.text for one in page.all("a")]


def _check_harmless(page: Element) -> None:
    sources = [one.attributes.get("src", "") for one in page.all("script")]
    assert all(source.startswith("/assets/") for source in sources)
    for one in page.one("body").walk():
        assert one.name not in _DANGEROUS
        assert one.name != "img"
        assert not [name for name in one.attributes if name.startswith("on") or name == "style"]
        assert not one.attributes.get("href", "").lower().startswith(("javascript:", "data:"))


def test_list__shows_what_matters_in_each_state(browser: TestClient, look: Look, runner: RowRunner) -> None:
    ids = {
        name: browser.post("/v1/jobs", json={"name": name}).json()["id"] for name in ("good", "bad", "going", "idle")
    }
    runner.run(ids["good"])
    runner.fail(runner.claim(ids["bad"]), "CUDA out of memory")
    runner.report(runner.claim(ids["going"]), 1, 2, 3)
    rows = {row.one("th").text: row for row in look("/jobs").one("tbody").all("tr")}
    assert "90.0 %" in rows["good"].text
    assert "succeeded" in rows["good"].text
    assert "user" in rows["bad"].text
    assert rows["going"].one("progress").attributes["value"] == "3"
    assert "3/10" in rows["going"].text
    assert rows["idle"].one("td", class_="in").text == "queued"


def test_alpha__says_when_the_range_is_too_narrow(browser: TestClient, look: Look, runner: RowRunner) -> None:
    found = browser.post("/v1/jobs", json={}).json()["id"]
    lease = runner.claim(found)
    runner.report(lease, 1, 2, 3, 4)
    assert not look(f"/jobs/{found}?tab=alpha").one("main").all("p", class_="notice-text")[1:]
    runner.report(lease, 10, 11)
    page = look(f"/jobs/{found}?tab=alpha")
    assert "33.3 % of the 6 searches: widen the range" in page.one("main").text
    assert len(page.one("tbody").all("tr")) == 6


def test_queue__says_what_is_kept_for_whom(look: Look, database: Database) -> None:
    nodes = planning.report_nodes(database, NodeSeen("n1", "host-1", num_cpus=4, num_gpus=0))
    whole = {"resources": {"cpus_per_worker": 4}, "limits": {"max_run_s": 600}}
    jobs.submit(database, actor=Actor("ann", "default"), **whole)
    planning.decide(database, nodes)
    assert not look("/queue").all("p", data_key="promise-1")
    waits = jobs.submit(database, actor=Actor("ben", "default"), name="next", **whole)
    planning.decide(database, nodes)
    band = look("/queue").one("p", data_key="promise-1")
    assert "Kept for next : host-1. It starts at" in band.text
    assert band.one("a").attributes["href"] == f"/jobs/{waits}?tab=why"


def test_usage__says_what_it_was_for_as_rest_does(browser: TestClient, look: Look, database: Database) -> None:
    me = Actor("root", "default")
    hand = HandRunner.start(database, submit(database, actor=me, name="mine"))
    hand.run({"optimizer.rho": 0.1}, 0.5)
    jobs.submit_and_claim(database, actor=me, optimizer={"variant": "sgd"})
    with database.unit_of_work() as session:
        session.execute(update(JobAttempt).values(started_at=db_now(-7200), finished_at=db_now(-3600)))
    until = datetime.now(UTC).date()
    since = until - timedelta(days=1)
    shown = {}
    for by in ("optimizer", "model", "study"):
        path = f"by={by}&since={since}&until={until}"
        rows = look(f"/usage?{path}&unit=cpu").all("tbody")[0].all("tr")
        shown[by] = {row.one("th").text: float(row.all("td")[0].text) for row in rows}
        items = browser.get(f"/v1/usage/sums?{path}").json()["items"]
        assert sorted(shown[by].values()) == sorted(round(one["cpu_hours"], 2) for one in items)
        written = browser.get(f"/usage.csv?{path}").text.splitlines()
        assert written[0] == "key,name,gpu_hours,cpu_hours,num_attempts"
        assert len(written) == 1 + len(items)
    assert shown["optimizer"] == {"xsam": 1.0, "sgd": 1.0}
    assert shown["study"] == {"mine": 1.0, "outside of studies": 1.0}
    assert look("/usage?by=study&unit=gpu").one("p", class_="empty")


def test_home__says_what_needs_attention(
    browser: TestClient, look: Look, database: Database, runner: RowRunner
) -> None:
    assert not look("/home").all("section", data_key="attention")
    found = str(browser.post("/v1/jobs", json={"name": "silent"}).json()["id"])
    runner.claim(found)
    study = submit(database, actor=Actor("root", "default"), name="held")
    with database.unit_of_work() as session:
        session.execute(update(Job).where(Job.id == found).values(reported_at=db_now(-2000)))
    browser.post(f"/v1/studies/{study}/pause").raise_for_status()
    browser.put("/v1/teams/default", json={"quota": {"running_jobs": 1}}).raise_for_status()
    said = look("/home").one("section", data_key="attention")
    assert "1 job stalled : silent" in said.text
    assert "1 study paused: held" in said.text
    assert "the team holds 1 of 1 running jobs" in said.text
    assert [one.attributes["href"] for one in said.all("a")] == [f"/jobs/{found}", f"/studies/{study}", "/queue"]


def test_list__pages_by_links_and_loses_no_job(browser: TestClient, look: Look) -> None:
    for i in range(7):
        browser.post("/v1/jobs", json={"name": f"job-{i}"})
    seen: list[str] = []
    path: str | None = "/jobs?limit=3"
    while path is not None:
        page = look(path)
        seen += [row.one("th").text for row in page.one("tbody").all("tr")]
        later = page.all("a", rel="next")
        path = urljoin("/jobs", later[0].attributes["href"]) if later else None
    assert seen == [f"job-{i}" for i in reversed(range(7))]


@pytest.mark.parametrize("caller", ["viewer", "member", "lead", "stranger", "admin"])
@pytest.mark.parametrize(
    "view", [*LISTS, "/jobs/{job}", "/jobs/{job}?tab=logs", "/jobs/compare?id={job}", "/admin/teams/red"]
)
def test_roles__see_their_team_only(
    guarded: TestClient,
    callers: Callers,
    sign_in: Callable[[str], TestClient],
    caller: str,
    view: str,
) -> None:
    headers = callers.headers("member")
    found = guarded.post("/v1/jobs", json={"name": "secret-plan"}, headers=headers).json()["id"]
    answer = sign_in(caller).get(view.format(job=found))
    is_foreign = caller == "stranger" and ("{job}" in view or view.endswith("/red"))
    kept_for = {"/admin/audit": ("lead", "admin"), "/admin/users": ("admin",)}
    if caller not in kept_for.get(view, (caller,)):
        assert answer.status_code == 403
        return
    assert answer.status_code == (404 if is_foreign else 200), answer.text[-500:]
    page = read(answer.text)
    if caller == "stranger":
        assert "secret-plan" not in answer.text
    if view == "/jobs" and caller != "stranger":
        assert page.one("tbody").one("th").text == "secret-plan"
    has_forms = any(one.attributes.get("method") == "post" for one in page.one("main").all("form"))
    if caller == "viewer" and view.startswith("/jobs/{job}"):
        assert not has_forms


def test_team__that_is_disabled_says_so(sign_in: Callable[[str], TestClient], callers: Callers) -> None:
    browser = sign_in("admin")
    disabled = browser.post("/v1/teams/red/disable", json={}, headers=callers.headers("admin"))
    assert disabled.status_code == 200
    assert browser.get("/admin/teams").text.count("(disabled)") == 1
    assert "(disabled)" in read(browser.get("/admin/teams/red").text).one("h1").text


def test_rows__are_shown_to_those_who_may_see_them(
    guarded: TestClient, callers: Callers, sign_in: Callable[[str], TestClient]
) -> None:
    found = guarded.post("/v1/jobs", json={}, headers=callers.headers("member")).json()["id"]
    part = {"X-Part": "rows"}
    assert (
        read(sign_in("member").get(f"/jobs/rows?id={found}", headers=part).text).one("tr").attributes["data-job"]
        == found
    )
    assert not read(sign_in("stranger").get(f"/jobs/rows?id={found}", headers=part).text).all("tr")


def test_no_dispatcher__is_said_and_lists_go_on(look: Look, browser: TestClient, database: Database) -> None:
    found = browser.post("/v1/jobs", json={}).json()["id"]
    page = look("/jobs")
    assert "No dispatcher" in page.one("p", class_="strip").text
    assert page.one("tbody").one("tr").attributes["data-job"] == found
    with database.unit_of_work() as session:
        verbs.update(session, found, JobUpdate(priority=3), actor=Actor("ann", "default"))


def test_dispatcher__takes_the_strip_away(look: Look, small_cluster: None) -> None:
    assert not look("/jobs").all("p", class_="strip")


def test_database_away__is_a_page_that_looks_again(browser: TestClient) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Database, "read", _away)
        answer = browser.get("/jobs")
    page = read(answer.text)
    assert answer.status_code == 503
    assert page.one("h1").text == "The database does not answer"
    assert page.one("section", data_module="views/retry")
    assert page.one("meta", http_equiv="refresh").attributes["content"] == "15"


def _away(_: Database) -> None:
    raise OperationalError("select 1", {}, Exception("connection refused"))
