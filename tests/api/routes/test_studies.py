"""Studies over a real connection: the typed client, and what every wrong request gets."""

import io

import httpx
import pyarrow.parquet as pq
import pytest

from tests.support import studies
from tests.support.studies import SMALL, HandRunner
from xsam.api.client import Client
from xsam.api.client.errors import ApiError
from xsam.services.db.session import Database
from xsam.services.jobs.states import FailureKind, JobState
from xsam.services.specs.job import JobSpec
from xsam.services.studies.schemas import StudyRead

POINT = {"optimizer.rho": 0.1}


def submitted(client: Client, **fields) -> StudyRead:
    return client.studies.submit({**SMALL, **fields})


def ran(client: Client, database: Database, *values: float, **fields) -> HandRunner:
    """Return a running study of which some trials have ended."""
    runner = HandRunner.start(database, submitted(client, **fields).id)
    for config, value in enumerate(values):
        runner.run({"optimizer.rho": round(0.1 + config / 10, 6)}, value, config=config)
    return runner


def test_submit__returns_the_study_and_where_it_is(http: httpx.Client):
    answer = http.post("/v1/studies", json={"preset": "rho"})
    assert answer.status_code == 201
    assert answer.headers["Location"] == f"/v1/studies/{answer.json()['id']}"
    assert answer.json()["num_trials"] == 12


def test_submit__twice_with_one_key_makes_one_study(http: httpx.Client):
    headers = {"Idempotency-Key": "nightly"}
    first = http.post("/v1/studies", json={"preset": "rho"}, headers=headers)
    again = http.post("/v1/studies", json={"preset": "rho"}, headers=headers)
    other = http.post("/v1/studies", json={"preset": "control"}, headers=headers)
    assert (first.status_code, again.status_code, other.status_code) == (201, 200, 409)
    assert first.json()["id"] == again.json()["id"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"space": {"optimizer.rhoo": {"type": "uniform", "low": 1, "high": 2}}}, "space.optimizer.rhoo"),
        ({"space": {"optimizer.rho": {"type": "uniform", "low": -1, "high": 2}}}, "space.optimizer.rho"),
        ({"space": {"optimizer.rho": {"type": "uniform", "low": 2, "high": 1}}}, "space.optimizer.rho"),
        ({"space": {"optimizer.rho": {"type": "sometimes"}}}, "space.optimizer.rho.type"),
        ({"sampler": {"name": "magic"}}, "sampler.name"),
        ({"num_trials": 0}, "num_trials"),
        ({"concurrency": 1000}, "concurrency"),
        ({"colour": "red"}, "colour"),
        ({"base": {"epochs": -1}}, "base.epochs"),
    ],
)
def test_submit__refuses_what_cannot_be_searched_and_names_the_field(http: httpx.Client, change, field):
    for path in ("/v1/studies", "/v1/studies:preview"):
        answer = http.post(path, json={**SMALL, **change})
        assert answer.status_code == 422
        assert field in [error["field"] for error in answer.json()["errors"]], answer.json()


def test_preview__counts_and_queues_nothing(client: Client):
    found = client.studies.preview({**SMALL, "control": True, "confirm_seeds": 2})
    assert (found.num_trials, found.grad_evals) == (19, 19 * 16)
    assert client.studies.page().items == []


def test_read__tells_best_and_arms(client: Client, database: Database):
    runner = ran(client, database, 0.5, 0.9)
    study = client.studies.get(runner.study_id)
    assert (study.state, study.best_trial, study.best_value) == (JobState.RUNNING, 2, 0.9)
    assert study.arms[0].best is not None
    assert study.arms[0].best.params == {"optimizer.rho": 0.2}
    assert [s.best_value for s in client.studies.page().items] == [0.9]


def test_trials__are_jobs_too_but_not_among_them(client: Client, database: Database):
    runner = ran(client, database, 0.5, 0.9)
    best, other = client.studies.trial_page(runner.study_id, sort="-value").items
    assert (best.number, other.number) == (2, 1)
    assert client.get(best.id).spec.optimizer.rho == 0.2
    assert len(client.metrics(best.id)) == 4
    assert list(client.list()) == []
    with pytest.raises(ApiError, match="is a study"):
        client.get(runner.study_id)


def test_trials__page_by_cursor(client: Client, database: Database):
    runner = ran(client, database, 0.5, 0.9, 0.7)
    first = client.studies.trial_page(runner.study_id, limit=2)
    rest = client.studies.trial_page(runner.study_id, limit=2, cursor=first.next_cursor)
    assert [t.number for t in [*first.items, *rest.items]] == [1, 2, 3]
    assert [t.number for t in client.studies.trials(runner.study_id, sort="-value")] == [2, 3, 1]


def test_export__csv_and_parquet(client: Client, database: Database):
    runner = ran(client, database, 0.5, 0.9)
    assert client.studies.export(runner.study_id).decode().splitlines()[0].endswith("params.optimizer.rho")
    table = pq.read_table(io.BytesIO(client.studies.export(runner.study_id, file_format="parquet")))
    assert table.column("value").to_pylist() == [0.5, 0.9]


def test_plots_and_importances__are_data(client: Client, database: Database):
    runner = ran(client, database, 0.5, 0.6, 0.9, 0.8, 0.7)
    assert [point.best for point in client.studies.plots(runner.study_id).points] == [0.5, 0.6, 0.9, 0.9, 0.9]
    assert client.studies.importances(runner.study_id) == {"optimizer.rho": 1.0}


def test_verbs__over_rest(client: Client, database: Database):
    runner = ran(client, database, 0.5)
    study_id = runner.study_id
    assert client.studies.pause(study_id).hold == "pause"
    assert client.studies.resume(study_id).hold is None
    assert client.studies.set_concurrency(study_id, 7).concurrency == 7
    assert client.studies.extend(study_id, num_trials=4).num_trials == 10
    assert [one.num_trials for one in client.studies.page().items] == [10]
    wide = {"optimizer.rho": {"type": "log_uniform", "low": 0.01, "high": 1.0}}
    assert client.studies.extend(study_id, space=wide).space["optimizer.rho"]["high"] == 1.0
    runner.fail(runner.claim(runner.propose(POINT, config=5)), FailureKind.USER)
    assert client.studies.retry_failed(study_id).num_by_state == {JobState.SUCCEEDED: 1, JobState.QUEUED: 1}
    assert client.studies.stop(study_id).hold == "stop"
    assert client.studies.cancel(study_id).wish == "cancel"
    with pytest.raises(ApiError) as caught:
        client.studies.resume(study_id)
    assert caught.value.code == "invalid_transition"


def test_promote__queues_the_winner_with_changes(client: Client, database: Database):
    runner = ran(client, database, 0.5, 0.9)
    job = client.studies.promote(runner.study_id, changes={"epochs": 50, "optimizer": {"base": {"lr": 0.2}}})
    assert (job.spec.epochs, job.spec.optimizer.rho, job.spec.optimizer.base.lr) == (50, 0.2, 0.2)
    assert job.labels == {"study": runner.study_id}
    assert [listed.id for listed in client.list()] == [job.id]
    assert client.studies.promote(runner.study_id, trial=1).spec.optimizer.rho == 0.1
    with pytest.raises(ApiError) as caught:
        client.studies.promote(runner.study_id, changes={"epochs": -1})
    assert caught.value.fields[0].field == "changes.epochs"
    with pytest.raises(ApiError) as caught:
        client.studies.promote(runner.study_id, changes={"labels": "x"})
    assert caught.value.fields[0].field == "changes.labels"


def test_changes__mean_the_same_in_clone_and_promote(client: Client, database: Database):
    """null removes a field, which then has its default; parts are merged; the study's label stays."""
    fields = {"epochs": 7, "labels": {"a": "1", "b": "2"}, "batch_size": 16, "limits": {"max_run_s": 60.0}}
    runner = ran(client, database, 0.5, base={**SMALL["base"], **fields})
    changes = {"epochs": None, "batch_size": None, "labels": {"a": None, "c": "3"}, "limits": None}
    promoted = client.studies.promote(runner.study_id, changes=changes)
    cloned = client.clone(client.submit({**promoted.spec.model_dump(mode="json"), **fields}).id, changes)
    default = JobSpec()
    assert promoted.labels == {"b": "2", "c": "3", "study": runner.study_id}
    assert cloned.labels == {"b": "2", "c": "3"}
    for job in (promoted, cloned):
        assert (job.spec.epochs, job.spec.batch_size, job.spec.limits) == (
            default.epochs,
            default.batch_size,
            default.limits,
        )


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/studies/nobody", 404),
        ("GET", "/v1/studies/nobody/trials", 404),
        ("GET", "/v1/studies/nobody/plots", 404),
        ("POST", "/v1/studies/nobody/pause", 404),
        ("POST", "/v1/studies/nobody/pause?now=1", 422),
        ("GET", "/v1/studies?colour=red", 422),
        ("GET", "/v1/studies/nobody/trials?sort=colour", 422),
        ("GET", "/v1/studies/NOBODY", 422),
        ("DELETE", "/v1/studies/nobody", 405),
    ],
)
def test_wrong_requests__get_a_problem_document(http: httpx.Client, method, path, status):
    answer = http.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_charts__are_sent_again_only_when_something_changed(http: httpx.Client, database: Database) -> None:
    runner = HandRunner.start(database, studies.submit(database))
    runner.run({"optimizer.rho": 0.1}, 0.5)
    for part in ("plots", "curves", "rungs"):
        first = http.get(f"/v1/studies/{runner.study_id}/{part}")
        known = {"If-None-Match": first.headers["ETag"]}
        assert http.get(f"/v1/studies/{runner.study_id}/{part}", headers=known).status_code == 304
    runner.run({"optimizer.rho": 0.2}, 0.6, config=1)
    assert http.get(f"/v1/studies/{runner.study_id}/plots", headers=known).status_code == 200


def test_charts__through_the_client(client: Client, database: Database) -> None:
    runner = HandRunner.start(database, studies.submit(database))
    runner.run({"optimizer.rho": 0.1}, 0.5)
    assert [curve.value for curve in client.studies.curves(runner.study_id).items] == [0.5]
    assert client.studies.rungs(runner.study_id).is_hypothetical
    with pytest.raises(ApiError, match="a map needs two"):
        client.studies.map(runner.study_id)
    found = client.studies.trial_page(runner.study_id, ranges=["value:0.4..0.6"], sort="-params.optimizer.rho")
    assert [trial.number for trial in found.items] == [1]
    with pytest.raises(ApiError, match="searched fields"):
        client.studies.trial_page(runner.study_id, ranges=["optimizer.k:1..2"])
