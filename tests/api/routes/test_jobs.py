from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from sqlalchemy import update

from tests.support.row_runner import RowRunner
from xsam.api.client import Client
from xsam.api.client.errors import ApiError
from xsam.services.db.session import Database
from xsam.services.jobs.models import Job
from xsam.services.jobs.states import FailureKind, JobState


def test_submit__answers_with_the_job_and_its_place(http: httpx.Client) -> None:
    response = http.post("/v1/jobs", json={"name": "first", "epochs": 3})

    job = response.json()
    assert response.status_code == 201
    assert http.get(response.headers["location"]).json() == job
    assert (job["state"], job["name"], job["team"], job["progress"]["num_epochs"]) == ("queued", "first", "default", 3)
    assert job["spec"]["optimizer"]["variant"] == "xsam"
    assert job["created_at"].endswith("Z")


def test_submit__is_committed_before_the_answer_leaves(http: httpx.Client, database: Database) -> None:
    job_id = http.post("/v1/jobs", json={}).json()["id"]
    with database.read() as session:  # another connection
        assert session.get(Job, job_id) is not None


def test_submit__reads_numbers_that_yaml_took_for_text(client: Client) -> None:
    job = client.submit({"optimizer": {"variant": "sgd", "base": {"name": "adamw", "lr": "1e-3"}}})
    assert job.spec.optimizer.base.lr == 1e-3


def test_submit__with_the_same_key_returns_the_first_job(http: httpx.Client) -> None:
    headers = {"Idempotency-Key": "nightly"}
    first = http.post("/v1/jobs", json={"epochs": 2}, headers=headers)
    second = http.post("/v1/jobs", json={"epochs": 2}, headers=headers)
    assert (first.status_code, second.status_code) == (201, 200)
    assert second.json()["id"] == first.json()["id"]
    assert second.headers["location"] == first.headers["location"]


def test_submit__with_one_key_from_many_threads_makes_one_job(url: str, client: Client) -> None:
    def submit(_: int) -> tuple[int, str]:
        with httpx.Client(base_url=url, timeout=60) as http:
            response = http.post("/v1/jobs", json={"epochs": 2}, headers={"Idempotency-Key": "same"})
            return response.status_code, response.json()["id"]

    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(submit, range(32)))

    assert len({job_id for _, job_id in answers}) == 1
    assert sorted(status for status, _ in answers) == [200] * 31 + [201]
    assert len(list(client.list())) == 1


def test_get__shows_progress_result_and_failure(client: Client, runner: RowRunner) -> None:
    done, failed = client.submit({"epochs": 2}), client.submit({"epochs": 2})
    lease = runner.claim(done.id)
    runner.report(lease, 1)
    running = client.get(done.id)
    runner.report(lease, 2)
    runner.complete(lease)
    runner.fail(runner.claim(failed.id), "division by zero")

    assert (running.state, running.attempt, running.progress.epochs_done) == (JobState.RUNNING, 1, 1)
    result = client.get(done.id)
    assert result.state == JobState.SUCCEEDED
    assert result.summary is not None
    assert result.summary.best_accuracy == 0.9
    failure = client.get(failed.id).failure
    assert failure is not None
    assert (failure.kind, failure.message) == ("user", "division by zero")


def test_list__filters_by_state_name_team_and_labels(client: Client, runner: RowRunner) -> None:
    a = client.submit({"name": "a", "labels": {"project": "noise", "who": "ann"}})
    b = client.submit({"name": "b", "labels": {"project": "noise"}})
    c = client.submit({"name": "c"})
    runner.claim(b.id)
    client.cancel(c.id)

    def found(**where: object) -> str:
        return "".join(job.name or "?" for job in client.list(**where))  # type: ignore[arg-type]

    assert found() == "cba"
    assert found(states=[JobState.QUEUED]) == "a"
    assert found(states=[JobState.RUNNING, JobState.CANCELLED]) == "cb"
    assert found(name="a") == "a"
    assert found(team="default") == "cba"
    assert found(team="other") == ""
    assert found(labels={"project": "noise"}) == "ba"
    assert found(labels={"project": "noise", "who": "ann"}) == "a"
    assert found(labels={"project": "nois"}) == ""
    assert client.get(a.id).labels == {"project": "noise", "who": "ann"}


def test_list__is_searched_and_sorted(client: Client, runner: RowRunner) -> None:
    sam = client.submit({"name": "vision", "optimizer": {"variant": "sam"}, "epochs": 2})
    client.submit({"name": "a run", "model": {"name": "mlp"}})
    runner.run(sam.id)
    assert [job.name for job in client.list(q="VIS")] == ["vision"]
    assert [job.name for job in client.list(optimizer="sam")] == ["vision"]
    assert [job.name for job in client.list(model="mlp", user=sam.submitted_by)] == ["a run"]
    assert [job.name for job in client.list(sort="name")] == ["a run", "vision"]
    assert [job.name for job in client.page(sort="-best", limit=1).items] == ["vision"]
    day = f"{sam.created_at:%Y-%m-%d}"
    assert len(list(client.list(since=day, until=day))) == 2
    assert list(client.list(since="2999-01-01")) == list(client.list(until="2001-01-01T00:00:00Z")) == []


@pytest.mark.parametrize(
    "query", [{"sort": "age"}, {"since": "0"}, {"since": "2026-02-31"}, {"failure": "bad luck"}, {"fields": "few"}]
)
def test_list__refuses_what_it_can_t_find_by(http: httpx.Client, query: dict[str, str]) -> None:
    answer = http.get("/v1/jobs", params=query)
    assert answer.status_code in {400, 422}
    assert next(iter(query)) in answer.text


def test_list__in_brief_says_why(client: Client, http: httpx.Client, runner: RowRunner) -> None:
    done = client.submit({"name": "done", "epochs": 2})
    runner.run(done.id)
    client.submit({"name": "waits"})
    waits, best = client.rows().items
    assert waits.why is not None
    assert (waits.why.code, best.best_value, best.grad_evals) == ("no_dispatcher", 0.9, 40)
    assert "spec" not in http.get("/v1/jobs", params={"fields": "brief"}).json()["items"][0]


def test_count__is_of_what_a_list_shows(client: Client, http: httpx.Client, runner: RowRunner) -> None:
    runner.run(client.submit({"epochs": 2}).id)
    for _ in range(2):
        client.submit({"name": "waits"})
    found = client.count(by=["state"])
    assert (found.num, found.is_exact) == (3, True)
    assert {group.state: group.num for group in found.groups} == {"queued": 2, "succeeded": 1}
    assert client.count(name="waits").num == 2
    assert http.get("/v1/jobs:count", params={"by": "colour"}).status_code == 422


def test_list__of_a_study_that_does_not_exist_is_not_found(client: Client) -> None:
    with pytest.raises(ApiError) as caught:
        list(client.list(study="nosuch"))
    assert caught.value.status == 404


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/studies"])
def test_list__refuses_more_labels_than_a_job_can_have(http: httpx.Client, path: str) -> None:
    """SQLite would give up on a condition of 1,500 parts."""
    labels = [("label", f"l{n}=x") for n in range(65)]
    assert http.get(path, params=labels[:64]).status_code == 200
    answer = http.get(path, params=labels)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "label")


def test_list__labels_with_dots_and_slashes_are_plain_keys(client: Client) -> None:
    client.submit({"name": "dotted", "labels": {"team.io/a": "x=y"}})
    client.submit({"labels": {"team": "x=y"}})
    assert [job.name for job in client.list(labels={"team.io/a": "x=y"})] == ["dotted"]


def test_list__pages_stay_what_they_are_when_jobs_are_added(client: Client) -> None:
    before = [client.submit({"name": f"job {number}"}).id for number in range(5)]
    first = client.page(limit=2)
    added = [client.submit({}).id for _ in range(3)]
    second = client.page(limit=2, cursor=first.next_cursor)
    third = client.page(limit=2, cursor=second.next_cursor)

    pages = [job.id for page in (first, second, third) for job in page.items]
    assert pages == before[::-1]
    assert third.next_cursor is None
    assert [job.id for job in client.list()] == added[::-1] + before[::-1]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("state=done", "state"),
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=99999999999999999999", "limit"),
        ("label=novalue", "label"),
        ("label=%22%5D=x", "label"),
        ("label=a=1&label=a=2", "label"),
        ("name=%00", "name"),
        ("team=a%00b", "team"),
        ("cursor=abc", "cursor"),
        ("cursor=WyIyMDI2LTAxLTAxVDAwOjAwOjAwWiIsICJcdTAwMDAiXQ==", "cursor"),  # an id with a NUL
        ("cursor=WyIwMDAxLTAxLTAxVDAwOjAwOjAwKzE0OjAwIiwgImEiXQ==", "cursor"),  # an instant before the year 1 in UTC
        ("cursor=bnVsbA==", "cursor"),
        ("states=queued", "states"),
    ],
)
def test_list__refuses_what_is_no_filter(http: httpx.Client, query: str, field: str) -> None:
    response = http.get(f"/v1/jobs?{query}")
    assert response.status_code == 422
    assert [error["field"].split(".")[0] for error in response.json()["errors"]] == [field]


@pytest.mark.parametrize("path", ["", "/metrics?after=0", "/alpha?after=0", "/events?after=0", "/logs?tail=0"])
def test_reads__refuse_unknown_parameters(client: Client, http: httpx.Client, path: str) -> None:
    address = f"/v1/jobs/{client.submit({}).id}{path}"
    assert http.get(address).status_code == 200
    response = http.get(address, params={"folow": "1"})
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "folow"


def test_cancel__ends_a_queued_job_at_once(http: httpx.Client, client: Client) -> None:
    job = client.submit({})
    response = http.post(f"/v1/jobs/{job.id}/cancel")
    assert (response.status_code, response.json()["state"]) == (200, "cancelled")


def test_cancel__asks_a_running_job_and_may_be_repeated(http: httpx.Client, client: Client, runner: RowRunner) -> None:
    job = client.submit({})
    lease = runner.claim(job.id)
    for _ in range(2):
        response = http.post(f"/v1/jobs/{job.id}/cancel")
        assert (response.status_code, response.json()["state"], response.json()["wish"]) == (202, "running", "cancel")
    runner.honour_cancel(lease)
    response = http.post(f"/v1/jobs/{job.id}/cancel")
    assert (response.status_code, response.json()["state"], response.json()["wish"]) == (200, "cancelled", None)
    assert [event.kind for event in client.events(job.id)] == ["submitted", "started", "cancel_requested", "cancelled"]


def test_metrics_and_alpha__come_in_order_and_from_where_one_asks(client: Client, runner: RowRunner) -> None:
    job = client.submit({"epochs": 3})
    runner.report(runner.claim(job.id), 1, 2, 3)
    assert [epoch.epoch for epoch in client.metrics(job.id)] == [1, 2, 3]
    assert [epoch.epoch for epoch in client.metrics(job.id, after=2)] == [3]
    assert [one.step for one in client.alphas(job.id)] == [1, 11, 21]
    (last,) = client.alphas(job.id, after_step=11)
    assert (last.alpha, last.alphas, last.losses) == (1.3, (0.0, 1.0, 2.0), (1.0, 1.2, 1.1))


@pytest.mark.parametrize("path", ["metrics?after=-1", "metrics?after=2147483648", "events?after=9223372036854775808"])
def test_after__out_of_range_is_refused(client: Client, http: httpx.Client, path: str) -> None:
    assert http.get(f"/v1/jobs/{client.submit({}).id}/{path}").status_code == 422


def test_events__come_in_order_by_pages(client: Client, http: httpx.Client, runner: RowRunner) -> None:
    job = client.submit({})
    runner.run(job.id)
    first = http.get(f"/v1/jobs/{job.id}/events", params={"limit": 2}).json()["items"]
    rest = http.get(f"/v1/jobs/{job.id}/events", params={"after": first[-1]["id"]}).json()["items"]
    assert [event["kind"] for event in first + rest] == ["submitted", "started", "succeeded"]
    assert first[0]["actor"] == client.get(job.id).submitted_by


def test_logs__merge_ranks_by_time_and_can_be_cut(client: Client, runner: RowRunner) -> None:
    job = client.submit({})
    lease = runner.claim(job.id)
    for number in range(3):
        for rank in range(2):
            runner.write_log(lease, f"line {number}", rank)
    lines = client.logs(job.id).splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == [
        f"[rank {rank}] line {number}" for number in range(3) for rank in range(2)
    ]
    assert client.logs(job.id, tail=2).splitlines() == lines[-2:]
    assert client.logs(job.id, rank=1, tail=1).splitlines() == lines[-1:]
    assert client.logs(job.id, tail=0) == ""
    assert client.logs(job.id, rank=7) == ""


def test_logs__are_kept_for_each_attempt(client: Client, runner: RowRunner) -> None:
    job = client.submit({"retry": {"user": 1}})
    assert client.logs(job.id) == ""
    for number in (1, 2):
        lease = runner.claim(job.id)
        runner.write_log(lease, f"attempt {number}")
        runner.fail(lease, is_retry=number == 1)
    assert client.logs(job.id).endswith("attempt 2\n")
    assert client.logs(job.id, attempt=1).endswith("attempt 1\n")
    with pytest.raises(ApiError, match="has had 2 attempts; there is none numbered 3"):
        client.logs(job.id, attempt=3)


def test_list__with_a_failure_of_a_kind_that_a_newer_release_wrote(
    client: Client, database: Database, runner: RowRunner
) -> None:
    job = client.submit({})
    runner.fail(runner.claim(job.id))
    with database.unit_of_work() as session:
        session.execute(update(Job).where(Job.id == job.id).values(failure_kind="eaten_by_a_grue"))
    (found,) = client.list()
    assert found.failure is not None
    assert found.failure.kind is FailureKind.OTHER
    assert "newer release" in found.failure.hint
    assert "(other)" in client.why(job.id).sentence


def test_metrics__are_thinned_and_read_of_several_jobs(client: Client, runner: RowRunner) -> None:
    ids = [client.submit({"epochs": 30}).id for _ in range(2)]
    for job_id in ids:
        runner.run(job_id, num_epochs=30)
    assert len(client.metrics(ids[0], points=10)) <= 10
    found = client.metrics_of(ids[::-1], points=10)
    assert list(found) == ids[::-1]
    assert all(1 < len(items) <= 10 for items in found.values())
    assert len(client.alphas(ids[0], points=10)) <= 10
    drawn = client.alpha_map(ids[0], columns=5)
    assert (drawn.alphas, len(drawn.columns), drawn.num_searches) == ([0.0, 1.0, 2.0], 5, 30)
    with pytest.raises(ApiError) as caught:
        client.metrics_of([ids[0], "nosuchjob"])
    assert caught.value.status == 404


def test_log_lines__are_numbered_and_found(client: Client, runner: RowRunner) -> None:
    job = client.submit({})
    lease = runner.claim(job.id)
    runner.write_log(lease, "one\nError: two\nthree")
    found = client.log_lines(job.id, find="error")
    assert [(line.number, line.text) for line in found.items] == [(2, "Error: two")]
    assert (found.num_found, found.last_number) == (1, 3)
    assert [line.number for line in client.log_lines(job.id, from_line=2, limit=1).items] == [2]
