"""Jobs on a real local Ray cluster, from a queued row to rows of results."""

import os
import time

import pytest
import ray
from sqlalchemy import update

from tests.support.live_service import LiveService
from tests.support.processes import descendants, stopped
from xsam.services.artifacts.store import JobFolder
from xsam.services.db.clock import db_now
from xsam.services.jobs.models import Job
from xsam.services.jobs.states import FailureKind, JobState

pytestmark = pytest.mark.ray

LONG = {"epochs": 400, "optimizer": {"variant": "sam"}}
"""Runs far longer than any test waits."""


def test_one_worker__runs_to_success_and_stores_every_epoch(live: LiveService) -> None:
    job_id = live.submit(epochs=3, optimizer={"variant": "sgd", "base": {"name": "sgd", "lr": 0.05}})
    job = live.finish(job_id)
    assert job.state == JobState.SUCCEEDED
    assert [row.epoch for row in live.epochs(job_id)] == [1, 2, 3]
    assert job.summary is not None
    assert job.summary["final_accuracy"] == live.epochs(job_id)[-1].eval_accuracy > 0.8
    assert live.event_kinds(job_id) == ["submitted", "started", "training", "succeeded"]
    assert live.attempts(job_id)[0].first_step_at is not None


def test_two_workers__share_one_alpha_estimate_per_epoch(live: LiveService) -> None:
    job_id = live.submit(epochs=2, resources={"num_workers": 2}, optimizer={"variant": "xsam", "rho": 0.05})
    assert live.finish(job_id).state == JobState.SUCCEEDED
    estimates = live.alphas(job_id)
    assert [row.epoch for row in estimates] == [1, 2]
    assert all(len(row.alphas) == len(row.losses) == 21 for row in estimates)
    assert all(row.alpha == row.alphas[row.losses.index(max(row.losses))] for row in estimates)
    folder = JobFolder(live.settings.artifact_root, job_id)
    assert {path.name for path in folder.logs(1).iterdir()} == {"rank-0.log", "rank-1.log"}


def let_ray_train_manage(live: LiveService, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the dispatcher hand runs of several workers to groups of Ray Train's own."""
    managed_ray = live.settings.ray.model_copy(update={"worker_groups": "managed"})
    managed_settings = live.settings.model_copy(update={"ray": managed_ray})
    monkeypatch.setattr(live.dispatcher._placer, "_settings", managed_settings)


def test_worker_group_of_ray_train__gives_the_same_result_as_warm_processes(
    live: LiveService, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = {"epochs": 2, "resources": {"num_workers": 2}, "optimizer": {"variant": "xsam"}}
    warm = live.finish(live.submit(**spec))
    let_ray_train_manage(live, monkeypatch)
    job_id = live.submit(**spec)
    live.turn_until(lambda: live.job(job_id).state == JobState.RUNNING)
    assert len(live.dispatcher.ranks_of(job_id)) == 1, "one process drives the group"
    managed = live.finish(job_id)
    assert warm.summary is not None
    assert managed.summary is not None
    assert managed.summary["final_eval_loss"] == warm.summary["final_eval_loss"]
    live.turn_until(live.all_resources_are_free)


@pytest.mark.parametrize("victim", ["runner", "driver"])
def test_worker_group_of_ray_train__whose_process_is_killed_holds_nothing(
    live: LiveService, monkeypatch: pytest.MonkeyPatch, victim: str
) -> None:
    let_ray_train_manage(live, monkeypatch)
    job_id = live.submit(**LONG, resources={"num_workers": 2}, retry={"infrastructure": 0})
    live.reach_epoch(job_id, 1)
    (driver,) = live.dispatcher.ranks_of(job_id)
    ray.kill(driver if victim == "driver" else live.dispatcher.runner_of(job_id))
    job = live.finish(job_id)
    assert (job.state, job.failure_kind) == (JobState.FAILED, FailureKind.INFRASTRUCTURE)
    live.turn_until(live.all_resources_are_free)


def test_runners_that_do_not_answer__cost_no_attempt(live: LiveService) -> None:
    live.turn_until(live.dispatcher.is_warm)
    titles = descendants(os.getpid())
    with stopped([pid for pid, title in titles.items() if title.startswith("ray::JobRunner")]):
        job_id = live.submit(epochs=1, optimizer={"variant": "sgd"})
        for _ in range(5):
            live.dispatcher.turn()
        assert live.event_kinds(job_id) == ["submitted"]
    assert live.finish(job_id).attempt == 1


def test_cancel__stops_a_running_epoch_in_seconds_and_frees_the_cluster(live: LiveService) -> None:
    job_id = live.submit(**LONG)
    live.reach_epoch(job_id, 1)
    assert not live.all_resources_are_free()
    live.cancel(job_id)
    asked_at = time.monotonic()
    assert live.finish(job_id).state == JobState.CANCELLED
    assert time.monotonic() - asked_at < 3
    live.turn_until(live.all_resources_are_free)


def test_missing_dataset__fails_with_the_path_and_the_setting(live: LiveService) -> None:
    job = live.finish(live.submit(dataset={"name": "cifar10"}))
    assert (job.state, job.failure_kind) == (JobState.FAILED, FailureKind.USER)
    assert job.failure_message is not None
    assert str(live.settings.dataset_root) in job.failure_message
    assert "XSAM_TRAINING__" in job.failure_message
    assert "Traceback" in (live.attempts(job.id)[0].traceback or "")
    assert "Traceback" in live.log(job.id)


def test_file_whose_name_is_no_utf_8__is_named_in_the_failure_of_one_attempt(live: LiveService) -> None:
    folder = live.settings.dataset_root / "odd"
    for part in ("train", "val"):
        for label in ("a", "b"):
            (folder / part / label).mkdir(parents=True, exist_ok=True)
            (folder / part / label / os.fsdecode(b"no\xff.png")).write_bytes(b"no image")
    spec = {"dataset": {"name": "image_folder", "folder": "odd", "image_size": 32}, "model": {"name": "small_cnn"}}
    job = live.finish(live.submit(**spec, batch_size=2))
    assert (job.state, job.failure_kind, job.attempt) == (JobState.FAILED, FailureKind.USER, 1)
    assert "no\\udcff.png can't be read" in str(job.failure_message)


def test_killed_rank__is_retried_from_the_checkpoint_and_ends_as_if_nothing_had_happened(live: LiveService) -> None:
    spec = {"epochs": 12, "optimizer": {"variant": "xsam"}, "resources": {"num_workers": 2}}
    undisturbed = live.finish(live.submit(**spec))
    job_id = live.submit(**spec)
    live.reach_epoch(job_id, 2)
    ray.kill(live.dispatcher.ranks_of(job_id)[1])
    disturbed = live.finish(job_id)
    assert disturbed.state == JobState.SUCCEEDED
    assert [attempt.outcome for attempt in live.attempts(job_id)] == [FailureKind.INFRASTRUCTURE, "succeeded"]
    assert [row.epoch for row in live.epochs(job_id)] == list(range(1, 13))
    assert [row.eval_loss for row in live.epochs(job_id)] == [row.eval_loss for row in live.epochs(undisturbed.id)]


def test_killed_runner__is_noticed_without_waiting_for_the_lease(live: LiveService) -> None:
    job_id = live.submit(epochs=20, optimizer={"variant": "sam"})
    live.reach_epoch(job_id, 1)
    ray.kill(live.dispatcher.runner_of(job_id))
    killed_at = time.monotonic()
    live.turn_until(lambda: live.job(job_id).attempt == 2)
    assert time.monotonic() - killed_at < live.settings.dispatcher.lease_s
    assert live.finish(job_id).state == JobState.SUCCEEDED
    assert [row.epoch for row in live.epochs(job_id)] == list(range(1, 21))
    live.turn_until(live.all_resources_are_free)


def test_expired_lease__takes_the_job_from_its_runner_and_another_attempt_finishes_it(live: LiveService) -> None:
    job_id = live.submit(epochs=20, optimizer={"variant": "sam"})
    live.reach_epoch(job_id, 1)
    with live.database.unit_of_work() as session:
        session.execute(update(Job).where(Job.id == job_id).values(lease_expires_at=db_now(-1)))
    job = live.finish(job_id)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2)
    assert [row.epoch for row in live.epochs(job_id)] == list(range(1, 21))
    live.turn_until(live.all_resources_are_free)


def test_diverging_run__is_stopped_and_named(live: LiveService) -> None:
    job = live.finish(
        live.submit(epochs=5, optimizer={"variant": "sgd", "base": {"name": "sgd", "lr": 100, "momentum": 0.99}})
    )
    assert (job.state, job.failure_kind) == (JobState.FAILED, FailureKind.DIVERGED)
    assert "step" in (job.failure_message or "")
