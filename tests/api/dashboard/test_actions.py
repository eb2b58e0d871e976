"""What pages change, by plain forms: as REST would, with the same refusals."""

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from tests.api.dashboard.conftest import OWN, form_token
from tests.api.dashboard.reading import Element, read
from tests.api.token_service import Callers
from tests.support.callers import make_webhook
from tests.support.row_runner import RowRunner
from xsam.services.db.session import Database

SignIn = Callable[[str], TestClient]


@pytest.fixture
def job(browser: TestClient) -> str:
    return str(browser.post("/v1/jobs", json={"name": "first"}).json()["id"])


@pytest.mark.parametrize(
    ("verbs", "state"),
    [
        (["cancel"], "cancelled"),
        (["pause"], "paused"),
        (["pause", "resume"], "queued"),
        (["cancel", "retry"], "queued"),
    ],
)
def test_verbs__do_what_their_button_says(browser: TestClient, job: str, verbs: list[str], state: str) -> None:
    for verb in verbs:
        page = read(browser.get(f"/jobs/{job}").text)
        form = page.one("form", action=f"/jobs/{job}/{verb}")
        answer = browser.post(form.attributes["action"], data={"form_token": form_token(form)}, headers=OWN)
        assert (answer.status_code, answer.headers["location"]) == (303, f"/jobs/{job}")
    assert browser.get(f"/v1/jobs/{job}").json()["state"] == state


def test_verb__that_no_longer_fits_is_refused_with_the_reason(browser: TestClient, runner: RowRunner, job: str) -> None:
    runner.run(job)
    answer = browser.post(f"/jobs/{job}/pause", data={"form_token": ""}, headers=OWN)
    assert answer.status_code == 409
    assert "succeeded" in read(answer.text).one("main").text


def test_machine__is_cordoned_and_taken_back(browser: TestClient, small_cluster: None) -> None:
    shown = read(browser.get("/cluster").text).one("main").text
    assert "H100 80 GB" in shown
    assert "zone=a" in shown
    form = read(browser.get("/cluster").text).one("form", aria_label="Cordon node-1")
    fields = {"form_token": form_token(form), "node": "node-1", "reason": "a fan", "drain_min": "5"}
    answer = browser.post(form.attributes["action"], data=fields, headers=OWN)
    assert (answer.status_code, answer.headers["location"]) == (303, "/cluster")
    page = read(browser.get("/cluster").text)
    row = page.one("tr", data_key="node-n1")
    assert "cordoned by root" in row.text
    assert "a fan · jobs leave at" in row.text
    assert browser.get("/v1/cluster").json()["nodes"][0]["cordon"]["node"] == "node-1"
    back = row.one("form", action="/cluster/uncordon")
    node = back.one("input", name="node").attributes["value"]
    browser.post("/cluster/uncordon", data={"form_token": form_token(back), "node": node}, headers=OWN)
    assert browser.get("/v1/cluster").json()["nodes"][0]["cordon"] is None
    assert [one["action"] for one in browser.get("/v1/audit").json()["items"]] == ["node_uncordoned", "node_cordoned"]


def test_team__is_told_what_it_keeps(browser: TestClient) -> None:
    browser.put("/v1/teams/red", json={})
    token = form_token(read(browser.get("/admin/teams/red").text))
    fields = {"form_token": token, "log_days": "14", "max_bytes": "2048"}
    assert browser.post("/admin/teams/red/retention", data=fields, headers=OWN).status_code == 303
    facts = read(browser.get("/admin/teams/red").text).one("main").text
    assert "14 days" in facts
    assert "2.0 KiB" in facts
    refused = browser.post("/admin/teams/red/retention", data={"form_token": token, "log_days": "-1"}, headers=OWN)
    assert (refused.status_code, "retention.log_days" in refused.text) == (422, True)


def test_team__says_what_is_done_about_idle_gpus(browser: TestClient) -> None:
    browser.put("/v1/teams/red", json={})
    form = read(browser.get("/admin/teams/red").text).one("form", action="/admin/teams/red/idle")
    fields = {"form_token": form_token(form), "then": "requeue", "after_min": "1440.5", "max_requeues": "2"}
    answer = browser.post(form.attributes["action"], data=fields, headers=OWN)
    assert (answer.status_code, answer.headers["location"]) == (303, "/admin/teams/red")
    policy = browser.get("/v1/teams/red").json()["idle"]
    assert policy == {"then": "requeue", "after_s": 86_430, "grace_s": None, "max_requeues": 2}
    page = read(browser.get("/admin/teams/red").text)
    assert "2 requeues in a row" in page.one("main").text
    form = page.one("form", action="/admin/teams/red/idle")
    assert form.one("option", selected="").text == "requeue"
    shown = {one.attributes["name"]: one.attributes["value"] for one in form.all("input")}
    assert shown == {
        "form_token": shown["form_token"],
        "after_min": "1440.5",
        "grace_min": "",
        "max_requeues": "2",
    }, "what is shown can be saved as it is"
    for wrong, said in (
        ({"after_min": "soon"}, "after_min is &#39;soon&#39;"),
        ({"then": "shout"}, "idle.then"),
        ({"max_requeues": "-1"}, "idle.max_requeues"),
    ):
        refused = browser.post("/admin/teams/red/idle", data={**fields, **wrong}, headers=OWN)
        assert (refused.status_code, said in refused.text) == (422, True), wrong
    browser.post("/admin/teams/red/idle", data={"form_token": fields["form_token"]}, headers=OWN)
    assert set(browser.get("/v1/teams/red").json()["idle"].values()) == {None}, "empty is as everywhere"


def test_idle_policy__is_for_admins_of_the_service(guarded: TestClient, sign_in: SignIn) -> None:
    page = read(sign_in("lead").get("/admin/teams/red").text)
    assert not page.all("form", action="/admin/teams/red/idle")
    fields = {"form_token": form_token(page), "then": "nothing"}
    assert guarded.post("/admin/teams/red/idle", data=fields, headers=OWN).status_code == 403
    assert "/admin/teams/red/idle" in sign_in("admin").get("/admin/teams/red").text


def test_team__tests_and_removes_its_webhooks(browser: TestClient, database: Database) -> None:
    browser.put("/v1/teams/red", json={})
    hook = make_webhook(database, "red")
    page = read(browser.get("/admin/teams/red").text)
    assert "https://hooks.example/x" in page.one("main").text
    form = {"form_token": form_token(page)}
    browser.post(f"/admin/teams/red/webhooks/{hook}/test", data=form, headers=OWN)
    assert "webhook.test waits" in read(browser.get("/admin/teams/red").text).one("main").text
    refused = browser.post("/admin/teams/red/webhooks", data={**form, "url": "https://a.example/"}, headers=OWN)
    assert (refused.status_code, "XSAM_NOTIFICATIONS__ALLOWED_HOSTS" in refused.text) == (422, True)
    browser.post(f"/admin/teams/red/webhooks/{hook}/remove", data=form, headers=OWN)
    assert browser.get("/v1/teams/red/webhooks").json()["items"] == []


def test_secrets__can_be_set_once_the_operator_has_set_a_key(browser: TestClient) -> None:
    browser.put("/v1/teams/red", json={})
    page = read(browser.get("/admin/teams/red").text)
    assert "before the operator sets XSAM_SECRETS__KEY" in page.one("main").text
    assert not page.all("form", action="/admin/teams/red/secrets")
    form = {"form_token": form_token(page), "name": "HF_TOKEN", "value": "hf_0123456789"}
    refused = browser.post("/admin/teams/red/secrets", data=form, headers=OWN)
    assert (refused.status_code, "XSAM_SECRETS__KEY" in refused.text) == (403, True)


def test_maintenance__is_begun_said_and_ended(browser: TestClient, small_cluster: None) -> None:
    token = form_token(read(browser.get("/cluster").text))
    assert browser.post("/cluster/cordon", data={"form_token": token, "node": "*"}, headers=OWN).status_code == 303
    page = read(browser.get("/cluster").text)
    said = page.one("div", data_key="maintenance")
    assert "nothing new starts" in said.text
    assert "jobs that run may end" in said.text
    browser.post("/cluster/uncordon", data={"form_token": token, "node": "*"}, headers=OWN)
    assert browser.get("/v1/cluster").json()["maintenance"] is None


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({"node": "node-9"}, 404, "node-9"),
        ({"node": "node-1", "drain_min": "soon"}, 422, "drain_min is 'soon'"),
        ({"node": "node-1", "drain_min": "-1"}, 422, "drain_within_s"),
        ({"node": "node-1", "reason": "x" * 301}, 422, "reason"),
    ],
)
def test_cordon__that_cannot_be_is_refused_with_the_reason(
    browser: TestClient, small_cluster: None, fields: dict[str, str], status: int, said: str
) -> None:
    answer = browser.post("/cluster/cordon", data={"form_token": "", **fields}, headers=OWN)
    assert answer.status_code == status
    assert said in read(answer.text).one("main").text


def test_cordon__is_for_admins_of_the_service(guarded: TestClient, sign_in: SignIn, small_cluster: None) -> None:
    page = read(sign_in("lead").get("/cluster").text)
    assert not page.one("main").all("form")
    token = form_token(page)
    for path in ("/cluster/cordon", "/cluster/uncordon"):
        assert guarded.post(path, data={"form_token": token, "node": "*"}, headers=OWN).status_code == 403
    assert "Cordon…" in sign_in("admin").get("/cluster").text


def test_unknown_verb__is_refused(browser: TestClient, job: str) -> None:
    assert browser.post(f"/jobs/{job}/explode", data={"form_token": ""}, headers=OWN).status_code == 404


def test_bulk__tells_what_came_of_each(browser: TestClient, runner: RowRunner) -> None:
    ids = [str(browser.post("/v1/jobs", json={}).json()["id"]) for _ in range(3)]
    runner.run(ids[0])
    answer = browser.post("/jobs/bulk", data={"form_token": "", "verb": "pause", "sel": ids}, headers=OWN)
    rows = {row.one("th").text: row.text for row in read(answer.text).one("tbody").all("tr")}
    assert "refused" in rows[ids[0]]
    assert all("done" in rows[one] for one in ids[1:])
    assert browser.get(f"/v1/jobs/{ids[1]}").json()["state"] == "paused"


def test_bulk__changes_priority_and_labels(browser: TestClient, job: str) -> None:
    form = {"form_token": "", "verb": "update", "sel": [job], "priority": "7", "label": "exp=a=b"}
    assert browser.post("/jobs/bulk", data=form, headers=OWN).status_code == 200
    read_back = browser.get(f"/v1/jobs/{job}").json()
    assert (read_back["priority"], read_back["labels"]) == (7, {"exp": "a=b"})


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"verb": "cancel"}, "no job is selected"),
        ({"verb": "explode", "sel": "{job}"}, "allowed are cancel"),
        ({"verb": "update", "sel": "{job}", "priority": "high"}, "change.priority"),
    ],
)
def test_bulk__says_what_is_wrong(browser: TestClient, job: str, form: dict[str, str], words: str) -> None:
    sent = {"form_token": "", **{name: value.format(job=job) for name, value in form.items()}}
    answer = browser.post("/jobs/bulk", data=sent, headers=OWN)
    assert answer.status_code == 422
    assert words in read(answer.text).one("main").text


def test_bulk__leads_to_compare(browser: TestClient, job: str) -> None:
    answer = browser.post("/jobs/bulk", data={"form_token": "", "verb": "compare", "sel": [job, "x"]}, headers=OWN)
    assert answer.headers["location"] == f"/jobs/compare?id={job}&id=x"


def test_other_teams__can_not_be_changed(guarded: TestClient, callers: Callers, sign_in: SignIn) -> None:
    found = guarded.post("/v1/jobs", json={}, headers=callers.headers("member")).json()["id"]
    browser = sign_in("stranger")
    token = form_token(read(browser.get("/admin/tokens").text))
    assert browser.post(f"/jobs/{found}/cancel", data={"form_token": token}, headers=OWN).status_code == 404
    sent = {"form_token": token, "verb": "cancel", "sel": [found]}
    assert "refused" in read(browser.post("/jobs/bulk", data=sent, headers=OWN).text).one("tbody").text


def test_viewers__change_nothing(guarded: TestClient, callers: Callers, sign_in: SignIn) -> None:
    found = guarded.post("/v1/jobs", json={}, headers=callers.headers("member")).json()["id"]
    browser = sign_in("viewer")
    token = form_token(read(browser.get("/home").text))
    for path in (f"/jobs/{found}/cancel", "/jobs/bulk", "/admin/tokens", "/admin/teams/red/members"):
        assert browser.post(path, data={"form_token": token}, headers=OWN).status_code == 403, path


def test_token__is_shown_once_and_can_be_revoked(sign_in: SignIn) -> None:
    browser = sign_in("member")
    page = read(browser.get("/admin/tokens").text)
    made = read(browser.post("/admin/tokens", data={"form_token": form_token(page), "label": "lap"}, headers=OWN).text)
    text = made.one("code", id="token").text
    assert browser.get("/v1/whoami", headers={"Authorization": f"Bearer {text}"}).json()["user"] == "ann"
    again = browser.get("/admin/tokens")
    assert text not in again.text
    row = next(row for row in read(again.text).one("tbody").all("tr") if "lap" in row.text)
    answer = browser.post(row.one("form").attributes["action"], data={"form_token": form_token(row)}, headers=OWN)
    assert answer.status_code == 303
    browser.cookies.clear()
    assert browser.get("/v1/whoami", headers={"Authorization": f"Bearer {text}"}).status_code == 401


def test_teams__are_made_and_staffed(sign_in: SignIn) -> None:
    browser = sign_in("admin")
    token = form_token(read(browser.get("/admin/teams").text))
    form = {"form_token": token, "name": "green", "weight": "2", "gpus": "6", "cpus": "", "running_jobs": ""}
    form["gpus_by_kind"] = "H100: 2, A100: 4"
    answer = browser.post("/admin/teams", data=form, headers=OWN)
    assert answer.headers["location"] == "/admin/teams/green"
    browser.post("/admin/teams/green/members", data={"form_token": token, "user": "gil", "role": "member"}, headers=OWN)
    page = read(browser.get("/admin/teams/green").text)
    assert "6 GPUs, - CPUs" in page.text
    assert "4 GPUs of kind a100, 2 GPUs of kind h100" in page.text
    assert page.one("tbody").one("th").text == "gil"
    remove = page.one("tbody").one("form").attributes["action"]
    assert browser.post(remove, data={"form_token": token}, headers=OWN).status_code == 303
    assert "Nobody yet" in browser.get("/admin/teams/green").text


@pytest.mark.parametrize(("folder", "name"), [("users", "sam"), ("teams", "blue")])
def test_leaving__is_said_before_it_is_done(
    sign_in: SignIn, callers: Callers, guarded: TestClient, folder: str, name: str
) -> None:
    guarded.post("/v1/jobs", json={}, headers=callers.headers("stranger"))
    browser = sign_in("admin")
    path = f"/admin/{folder}/{name}"

    def panel() -> Element:
        return read(browser.get(path).text).one("section", aria_labelledby="leaving-title")

    def tell(verb: str, **fields: str) -> int:
        sent = {"form_token": form_token(panel()), **fields}
        return browser.post(f"{path}/{verb}", data=sent, headers=OWN).status_code

    said = panel()
    assert "1 queued" in said.text
    assert "disabled" in said.all("button")[1].attributes  # deleting is refused while a job is to come
    assert tell("delete") == 409
    assert tell("disable", cancel_jobs="yes") == 303
    assert guarded.get("/v1/whoami", headers=callers.headers("stranger")).status_code == 401
    said = panel()
    assert "0 queued" in said.text
    assert "1 ended jobs" in said.text
    assert tell("enable") == 303
    assert tell("delete") == 303
    assert name not in [row.one("th").text for row in read(browser.get(f"/admin/{folder}").text).one("tbody").all("tr")]


def test_users__are_for_admins_of_the_service(sign_in: SignIn) -> None:
    browser = sign_in("member")
    assert browser.get("/admin/users").status_code == 403
    assert browser.get("/admin/users/ann").status_code == 403


def test_teams__refuse_what_rest_refuses(sign_in: SignIn) -> None:
    browser = sign_in("admin")
    token = form_token(read(browser.get("/admin/teams").text))
    answer = browser.post("/admin/teams", data={"form_token": token, "name": "green", "weight": "-1"}, headers=OWN)
    assert answer.status_code == 422
    assert "weight must be greater than 0" in read(answer.text).one("main").text
