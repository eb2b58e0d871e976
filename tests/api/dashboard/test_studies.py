"""The list of studies and a study's page: what they show, what forms do, and text of people as text."""

from typing import Any

import httpx
import pytest
import yaml

from tests.api.dashboard.reading import Element, read
from tests.support.many_trials import study_of
from tests.support.studies import HandRunner, submit
from xsam.api.client import Client
from xsam.services.db.session import Database
from xsam.services.jobs.states import JobState
from xsam.services.studies import trials
from xsam.services.studies.trials import Result
from xsam.services.teams.roles import Actor

HTML = {"Accept": "text/html"}
ME = Actor("root", "default")
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin", **HTML}


@pytest.fixture
def study_id(database: Database) -> str:
    """A study with 30 ended trials of three arms, confirmed and over."""
    return study_of(database, 30, actor=ME, has_ended=True)


def page_of(http: httpx.Client, path: str, status: int = 200) -> Element:
    """Return a page as a browser gets it."""
    answer = http.get(path, headers=HTML)
    assert answer.status_code == status, answer.text[:500]
    return read(answer.text)


def post(http: httpx.Client, path: str, **fields: Any) -> httpx.Response:
    """Send a form as a browser without scripts does."""
    return http.post(path, data={"form_token": "", **fields}, headers=SAME_ORIGIN)


def test_list__shows_state_trials_and_best(http: httpx.Client, study_id: str) -> None:
    row = page_of(http, "/studies").one("tr", data_study=study_id)
    assert "rho-k-lr" in row.text
    assert "succeeded" in row.text
    assert row.one("a").attributes["href"] == f"/studies/{study_id}"
    best = row.all("td", class_="best")[0].text
    assert best.startswith("0.")


def test_list__says_how_to_make_the_first_one(http: httpx.Client) -> None:
    empty = page_of(http, "/studies").one("p", class_="empty")
    assert "xsam study submit" in empty.text
    assert empty.one("a").attributes["href"] == "/studies/new"


def test_list__empty_by_filter_says_so(http: httpx.Client, study_id: str) -> None:
    assert "No study matches" in page_of(http, "/studies?state=paused").one("main").text
    assert page_of(http, "/studies?state=succeeded").all("tr", data_study=study_id)


def test_list__follows_the_cursor(http: httpx.Client, database: Database) -> None:
    ids = [submit(database, actor=ME, name=f"study {i}") for i in range(3)]
    first = page_of(http, "/studies?limit=2")
    later = first.one("a", rel="next").attributes["href"]
    second = page_of(http, f"/studies{later}")
    shown = [
        one.attributes["data-study"]
        for page in (first, second)
        for one in page.all("tr")
        if "data-study" in one.attributes
    ]
    assert shown == ids[::-1]


def test_study__says_the_verdict_in_the_words_of_rest(http: httpx.Client, client: Client, study_id: str) -> None:
    said = page_of(http, f"/studies/{study_id}").one("ul", class_="verdicts").text
    comparisons = client.studies.get(study_id).comparisons
    assert len(comparisons) == 2
    for comparison in comparisons:
        assert comparison.sentence in said
    assert "On the seeds that chose it" not in said


def test_confirmation__is_seen_while_it_goes_on_and_when_it_is_over(http: httpx.Client, database: Database) -> None:
    study_id = submit(database, actor=ME, num_trials=1, confirm_seeds=2)
    page = page_of(http, f"/studies/{study_id}")
    assert "Confirmation follows the search" in page.one("div", id="verdict").text
    runner = HandRunner.start(database, study_id)
    runner.run({"optimizer.rho": 0.1}, 0.9)
    shown = []
    for seed in (100, 101):
        lease = runner.claim(runner.propose({"optimizer.rho": 0.1}, seed=seed, phase="confirm"))
        shown.append(page_of(http, f"/studies/{study_id}").one("table", class_="confirmation").one("tbody").text)
        runner.finish(lease, 0.8 if seed == 100 else 0.7)
    over = page_of(http, f"/studies/{study_id}").one("table", class_="confirmation").one("tbody").text
    assert shown == ["xsam 0/2 1 running 0.9 - -", "xsam 1/2 1 running 0.9 0.8 -0.1"]
    assert over == "xsam 2/2 0.9 0.75 -0.15"


def test_study__flattered_verdict_is_marked(http: httpx.Client, database: Database) -> None:
    space = {"optimizer.rho": {"type": "log_uniform", "low": 0.01, "high": 0.5}}
    study_id = submit(database, actor=ME, space=space, control=True, num_trials=2, seeds_per_config=2, confirm_seeds=0)
    runner = HandRunner.start(database, study_id)
    for arm, point in enumerate(({"optimizer.rho": 0.1}, {}, {"optimizer.rho": 0.1})):
        for seed in (0, 1):
            runner.run(point, 0.9 - 0.1 * arm - 0.01 * seed, arm=arm, seed=seed)
    item = page_of(http, f"/studies/{study_id}").all("li", class_="doubtful")[0]
    assert "On the seeds that chose it." in item.text


@pytest.mark.parametrize("tab", ["live", "trials", "rungs", "answer", "spec"])
def test_study__every_part_answers_also_before_the_first_trial(
    http: httpx.Client, database: Database, study_id: str, tab: str
) -> None:
    for one in (study_id, submit(database, actor=ME)):
        page = page_of(http, f"/studies/{one}?tab={tab}")
        current = [link.text for link in page.all("a", aria_current="page")]
        assert tab.capitalize() in current


def test_trials__are_filtered_sorted_and_paged(http: httpx.Client, client: Client, study_id: str) -> None:
    page = page_of(http, f"/studies/{study_id}?tab=trials&arm=sgd&phase=search&sort=number")
    numbers = [int(row.one("a").text) for row in page.one("table", class_="trials").one("tbody").all("tr")]
    expected = [t.number for t in client.studies.trials(study_id, phase="search") if t.arm == "sgd"]
    assert numbers == expected
    best = page_of(http, f"/studies/{study_id}?tab=trials").one("table", class_="trials").one("tbody").all("tr")[0]
    assert int(best.one("a").text) == next(iter(client.studies.trials(study_id, sort="-value"))).number


def test_rungs__say_who_got_where_as_rest_does(http: httpx.Client, client: Client, database: Database) -> None:
    stopping = {"name": "asha", "grace": 0.25, "reduction_factor": 2}
    study_id = submit(database, actor=ME, early_stopping=stopping)
    runner = HandRunner.start(database, study_id)
    for value in (0.5, 0.7):
        runner.run({"optimizer.rho": 0.1}, value)
    stopped = runner.claim(runner.propose({"optimizer.rho": 0.2}))
    runner.measure(stopped, [0.1], grad_evals=4)
    with database.unit_of_work() as session:
        trials.finish(session, stopped, Result({"train_s": 1.0}, 0.1, is_stopped_early=True))
    page = page_of(http, f"/studies/{study_id}?tab=rungs")
    assert "ASHA compares" in page.one("main").text
    (arm,) = client.studies.rungs(study_id).arms
    rows = page.one("table", class_="rungs").one("tbody").all("tr")
    assert [row.one("th").text for row in rows] == ["25.0 % of a run", "50.0 % of a run"]
    shown = [[int(cell.text) for cell in row.all("td")[1:3]] for row in rows]
    assert shown == [[len(one.trials), sum(t.is_stopped for t in one.trials)] for one in arm.rungs] == [[3, 1], [2, 0]]
    assert page.one("div", data_module="views/study_rungs").attributes["data-study"] == study_id


@pytest.mark.parametrize(
    ("stopping", "said"), [({"name": "none"}, "has no rungs"), ({"name": "median"}, "The median rule has no rungs")]
)
def test_rungs__of_a_study_without_them_are_said_to_be_asha_s(
    http: httpx.Client, database: Database, stopping: dict[str, Any], said: str
) -> None:
    page = page_of(http, f"/studies/{submit(database, actor=ME, early_stopping=stopping)}?tab=rungs")
    assert said in page.one("p", class_="notice-text").text
    assert "ASHA's defaults would have had" in page.one("p", class_="notice-text").text
    assert "No trial has started yet" in page.one("p", class_="empty").text


def test_spec__is_a_file_that_submits_the_same_study(http: httpx.Client, client: Client, study_id: str) -> None:
    text = page_of(http, f"/studies/{study_id}?tab=spec").one("pre", id="spec").children[0]
    assert isinstance(text, str)
    again = client.studies.submit(yaml.safe_load(text))
    assert again.spec == client.studies.get(study_id).spec


@pytest.mark.parametrize(("verb", "hold"), [("pause", "pause"), ("stop", "stop")])
def test_verbs__are_plain_forms(http: httpx.Client, client: Client, database: Database, verb: str, hold: str) -> None:
    study_id = study_of(database, 6, actor=ME)
    form = next(
        one for one in page_of(http, f"/studies/{study_id}").all("form") if one.attributes["action"].endswith(verb)
    )
    answer = post(http, form.attributes["action"])
    assert (answer.status_code, answer.headers["location"]) == (303, f"/studies/{study_id}")
    assert client.studies.get(study_id).hold == hold


def test_verbs__change_concurrency_cancel_and_resume(http: httpx.Client, client: Client, database: Database) -> None:
    study_id = study_of(database, 6, actor=ME)
    assert post(http, f"/studies/{study_id}/concurrency", concurrency="5").status_code == 303
    assert client.studies.get(study_id).concurrency == 5
    post(http, f"/studies/{study_id}/pause")
    post(http, f"/studies/{study_id}/resume")
    assert client.studies.get(study_id).hold is None
    post(http, f"/studies/{study_id}/cancel")
    assert client.studies.get(study_id).wish == "cancel"


def test_promote__queues_the_job_of_a_trial(http: httpx.Client, client: Client, study_id: str) -> None:
    best = next(iter(client.studies.trials(study_id, phase="search", sort="-value")))
    answer = post(http, f"/studies/{study_id}/promote", trial=str(best.number), changes="epochs: 33")
    assert answer.status_code == 303
    job = client.get(answer.headers["location"].removeprefix("/jobs/"))
    assert job.spec.epochs == 33
    assert getattr(job.spec.optimizer, "rho") == best.params["optimizer.rho"]  # noqa: B009 - one of several variants


@pytest.mark.parametrize(
    ("verb", "fields", "said"),
    [
        ("promote", {"trial": "99999"}, "no trial 99999"),
        ("promote", {"changes": "epochs: ["}, "changes is not YAML"),
        ("promote", {"changes": "- 1"}, "changes holds list"),
        ("extend", {"num_trials": "many"}, "num_trials is 'many'"),
        ("extend", {"num_trials": "3", "space": "{optimizer.rho: {type: log_uniform, low: 0.2, high: 0.3}}"}, "rho"),
    ],
)
def test_dialogs__say_what_was_refused_and_keep_what_was_typed(
    http: httpx.Client, study_id: str, verb: str, fields: dict[str, str], said: str
) -> None:
    answer = post(http, f"/studies/{study_id}/{verb}", **fields)
    dialog = read(answer.text).one("dialog", id=f"do-{verb}")
    assert answer.status_code == 422
    assert "open" in dialog.attributes
    assert said in dialog.one("p", role="alert").text
    values = [one.attributes.get("value", "") for one in dialog.all("input")] + [
        one.text for one in dialog.all("textarea")
    ]
    for value in fields.values():
        assert value in values


def test_extend__adds_trials_and_takes_an_ended_study_up_again(
    http: httpx.Client, client: Client, study_id: str
) -> None:
    before = client.studies.get(study_id)
    assert post(http, f"/studies/{study_id}/extend", num_trials="4").status_code == 303
    after = client.studies.get(study_id)
    assert after.num_trials > before.num_trials
    assert after.state is JobState.QUEUED


def test_unknown_verb_and_foreign_post__are_refused(http: httpx.Client, study_id: str) -> None:
    assert post(http, f"/studies/{study_id}/explode").status_code == 422
    headers = {"Sec-Fetch-Site": "cross-site", **HTML}
    answer = http.post(f"/studies/{study_id}/cancel", data={"form_token": ""}, headers=headers)
    assert answer.status_code == 403


def test_unknown_study_and_parameter__are_errors(http: httpx.Client, study_id: str) -> None:
    assert http.get("/studies/nosuchstudy0", headers=HTML).status_code == 404
    assert http.get(f"/studies/{study_id}?bogus=1", headers=HTML).status_code == 422


@pytest.mark.parametrize("tab", ["live", "trials", "rungs", "answer", "spec"])
def test_hostile_values__are_text(http: httpx.Client, database: Database, tab: str) -> None:
    hostile = '"><img src=x onerror=alert(1)>{{7*7}}'
    study_id = submit(
        database,
        actor=ME,
        space={"optimizer.rho": {"type": "log_uniform", "low": 0.01, "high": 0.5}},
        base={"dataset": {"name": "synthetic"}, "labels": {"note": hostile}},
    )
    page = page_of(http, f"/studies/{study_id}?tab={tab}&trial=3&brush={hostile}&across={hostile}&order={hostile}")
    assert not page.all("img")
