"""Changing jobs over a real connection: the typed client, and what wrong requests get."""

from typing import Any

import httpx
import pytest

from tests.support import studies
from tests.support.row_runner import RowRunner
from xsam.api.client import Client
from xsam.api.client.errors import ApiError
from xsam.services.db.session import Database
from xsam.services.jobs.states import JobState, Wish


def test_pause__and_resume_hold_a_job_and_let_it_go(client: Client) -> None:
    job = client.submit({})
    assert client.pause(job.id).state is JobState.PAUSED
    assert client.resume(job.id).state is JobState.QUEUED
    assert [event.kind for event in client.events(job.id)] == ["submitted", "paused", "resumed"]


def test_pause__of_a_running_job_is_accepted_and_shown_as_a_wish(
    client: Client, http: httpx.Client, runner: RowRunner
) -> None:
    job = client.submit({})
    runner.claim(job.id)
    answer = http.post(f"/v1/jobs/{job.id}/pause")
    assert (answer.status_code, answer.json()["state"], answer.json()["wish"]) == (202, "running", "pause")
    assert client.resume(job.id).wish is None
    assert client.cancel(job.id).wish is Wish.CANCEL


def test_retry__queues_a_failed_job_again(client: Client, runner: RowRunner) -> None:
    job = client.submit({})
    runner.fail(runner.claim(job.id))
    failed = client.get(job.id)
    assert failed.failure is not None
    assert "traceback" in failed.failure.hint
    assert client.retry(job.id).state is JobState.QUEUED
    assert client.get(job.id).failure is None


def test_update__changes_priority_and_labels(client: Client) -> None:
    job = client.submit({"labels": {"a": "1"}})
    changed = client.update(job.id, priority=5, labels={"a": None, "b": "2"})
    assert (changed.priority, changed.labels) == (5, {"b": "2"})
    assert client.update(job.id).priority == 5


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"priority": 1000}, "priority"),
        ({"labels": {"a b": "x"}}, "labels"),
        ({"epochs": 3}, "epochs"),
        ({"labels": []}, "labels"),
    ],
)
def test_update__refuses_the_rest_and_names_the_field(
    client: Client, http: httpx.Client, body: Any, field: str
) -> None:
    job = client.submit({})
    answer = http.patch(f"/v1/jobs/{job.id}", json=body)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_clone__makes_a_job_with_changes_once_for_a_key(http: httpx.Client, client: Client) -> None:
    job = client.submit({"epochs": 3, "optimizer": {"variant": "sam", "rho": 0.05}})
    body = {"changes": {"epochs": 5, "optimizer": {"rho": 0.2}}}
    headers = {"Idempotency-Key": "again"}
    first = http.post(f"/v1/jobs/{job.id}/clone", json=body, headers=headers)
    second = http.post(f"/v1/jobs/{job.id}/clone", json=body, headers=headers)
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json()["id"] == second.json()["id"] != job.id
    assert first.headers["Location"] == f"/v1/jobs/{first.json()['id']}"
    spec = client.clone(job.id, body["changes"]).spec
    assert (spec.epochs, spec.optimizer.variant, spec.optimizer.rho) == (5, "sam", 0.2)


def test_clone__names_what_is_wrong_with_the_changed_specification(client: Client) -> None:
    job = client.submit({})
    with pytest.raises(ApiError) as caught:
        client.clone(job.id, {"batch_size": 63, "resources": {"num_workers": 2}})
    assert caught.value.status == 422
    assert [error.field for error in caught.value.fields] == ["changes.batch_size"]


def test_each__gives_every_job_its_own_result(client: Client, runner: RowRunner) -> None:
    waiting, done = client.submit({}), client.submit({})
    runner.run(done.id)
    found = client.each("cancel", ids=[done.id, waiting.id, "nosuchjob"])
    assert [(item.job_id, item.is_done, item.code) for item in found.items] == [
        (done.id, False, "invalid_transition"),
        (waiting.id, True, None),
        ("nosuchjob", False, "not_found"),
    ]


def test_each__takes_what_a_filter_matches(client: Client) -> None:
    mine = {client.submit({"labels": {"sweep": "7"}}).id for _ in range(3)}
    other = client.submit({})
    for verb, state in (("pause", JobState.PAUSED), ("resume", JobState.QUEUED), ("cancel", JobState.CANCELLED)):
        assert {item.job_id for item in client.each(verb, labels={"sweep": "7"}).items} == mine
        assert {client.get(job_id).state for job_id in mine} == {state}
    assert {item.state for item in client.each("retry", states=[JobState.CANCELLED]).items} == {JobState.QUEUED}
    assert client.get(other.id).state is JobState.QUEUED


def test_dry_run__counts_and_changes_nothing(client: Client, runner: RowRunner) -> None:
    waits = [client.submit({"name": f"sweep {number}"}).id for number in range(2)]
    runner.claim(waits[0])
    client.submit({"name": "other"})
    found = client.each("cancel", q="sweep", dry_run=True)
    assert found.would is not None
    assert (found.items, found.would.num) == ([], 2)
    assert found.would.num_by_state == {"running": 1, "queued": 1}
    assert list(found.would.num_by_user.values()) == [2]
    assert client.get(waits[1]).state == "queued"
    by_id = client.update_each(priority=9, ids=[waits[1], "nosuchjob"], dry_run=True).would
    assert by_id is not None
    assert (by_id.num, client.get(waits[1]).priority) == (1, 0)


def test_each__takes_the_filters_of_lists(client: Client) -> None:
    sam = client.submit({"optimizer": {"variant": "sam"}})
    client.submit({})
    found = client.each("cancel", optimizer="sam", since="2020-01-01", until="2999-01-01", user=sam.submitted_by)
    assert [item.job_id for item in found.items] == [sam.id]


def test_update_each__changes_what_matches(client: Client) -> None:
    ids = [client.submit({"name": "run"}).id for _ in range(2)]
    found = client.update_each(priority=9, set_labels={"x": "y"}, name="run")
    assert sorted(item.job_id for item in found.items) == sorted(ids)
    assert {(job.priority, job.labels["x"]) for job in client.list(name="run")} == {(9, "y")}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "ids"),
        ({"ids": ["a1"], "where": {"name": "x"}}, "ids"),
        ({"where": {}}, "where"),
        ({"ids": ["../x"]}, "ids.0"),
        ({"ids": ["a"] * 1001}, "ids"),
        ({"where": {"state": ["lost"]}}, "where.state.0"),
        ({"where": {"colour": "red"}}, "where.colour"),
    ],
)
def test_bulk__refuses_selections_that_are_empty_or_wrong(http: httpx.Client, body: Any, field: str) -> None:
    answer = http.post("/v1/jobs:cancel", json=body)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_trials__are_told_by_their_study(client: Client, database: Database) -> None:
    trial_id = studies.HandRunner.start(database, studies.submit(database)).run({"optimizer.rho": 0.1}, 0.5, config=0)
    for verb in (client.pause, client.resume, client.retry):
        with pytest.raises(ApiError, match="only its study"):
            verb(trial_id)


def test_preview__counts_and_queues_nothing(client: Client) -> None:
    client.submit({"priority": 1})
    found = client.preview({"epochs": 2, "batch_size": 64, "optimizer": {"variant": "sam"}})
    assert found.steps is not None
    assert found.grad_evals == 2 * found.steps
    assert (found.num_ahead, found.as_of, found.seconds_per_grad_eval) == (1, None, None)
    assert len(list(client.list())) == 1


@pytest.mark.usefixtures("small_cluster")
def test_preview__refuses_what_a_submit_would_refuse(client: Client) -> None:
    with pytest.raises(ApiError) as caught:
        client.preview({"resources": {"num_workers": 32}})
    assert caught.value.code == "infeasible"
