"""Several nodes with logical GPUs on one machine: placement, jobs on GPUs, what is given back, the loss of a node."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.support.live_service import LiveService, Nodes, live_service
from xsam.services.jobs.states import JobState

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TWO_WORKERS = {
    "resources": {"num_workers": 2, "cpus_per_worker": 3, "gpus_per_worker": 1},  # so that no node holds both
    "optimizer": {"variant": "xsam", "rho": 0.1},
}


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """A head without GPUs and two nodes with four logical GPUs each."""
    started = Nodes()
    for _ in range(2):
        started.add(num_cpus=4, num_gpus=4)
    yield started
    started.shutdown()


@pytest.fixture(scope="module")
def live(nodes: Nodes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    """A dispatcher that has joined the cluster."""
    folder = tmp_path_factory.mktemp("nodes")
    with live_service(folder, num_cpus=None, warm_processes=1, device="cpu", address=nodes.address) as started:
        yield started


def test_cpu_job__is_placed_away_from_gpus(live: LiveService) -> None:
    job_id = live.submit(epochs=1, optimizer={"variant": "sgd"})
    live.turn_until(lambda: live.job(job_id).state == JobState.RUNNING)
    (node_id,) = live.job(job_id).placement or []
    gpus = {node.id: node.num_gpus for node in live.dispatcher.nodes}
    assert gpus[node_id] == 0
    assert live.finish(job_id).state == JobState.SUCCEEDED


def test_two_workers__train_on_two_nodes_as_two_do_on_cpus_and_give_all_back(live: LiveService) -> None:
    job_id = live.submit(epochs=2, **TWO_WORKERS)
    live.turn_until(lambda: live.job(job_id).state == JobState.RUNNING)
    assert len(set(live.job(job_id).placement or [])) == 2
    on_gpus = live.finish(job_id)
    assert on_gpus.state == JobState.SUCCEEDED, on_gpus.failure_message
    on_cpus = live.finish(
        live.submit(epochs=2, **{**TWO_WORKERS, "resources": {"num_workers": 2, "cpus_per_worker": 3}})
    )
    assert on_gpus.summary is not None
    assert on_cpus.summary is not None
    assert on_gpus.summary["final_eval_loss"] == on_cpus.summary["final_eval_loss"]
    live.turn_until(live.all_resources_are_free)


def test_cancel__gives_both_gpus_back(live: LiveService) -> None:
    job_id = live.submit(epochs=10_000, **TWO_WORKERS)
    live.reach_epoch(job_id, 1)
    live.cancel(job_id)
    assert live.finish(job_id).state == JobState.CANCELLED
    live.turn_until(live.all_resources_are_free)


@pytest.mark.parametrize("victim", ["rank_pid", "runner_pid"])
def test_killed_process__costs_an_attempt_and_no_gpu(live: LiveService, victim: str) -> None:
    job_id = live.submit(epochs=12, **TWO_WORKERS)
    live.reach_epoch(job_id, 2)
    os.kill(live.training_event(job_id)[victim], signal.SIGKILL)
    job = live.finish(job_id)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2), job.failure_message
    assert [row.epoch for row in live.epochs(job_id)] == list(range(1, 13))
    live.turn_until(live.all_resources_are_free)


def test_half_a_gpu__two_jobs_share_one(live: LiveService) -> None:
    first, second = (live.submit(epochs=20, resources={"gpus_per_worker": 0.5}) for _ in range(2))
    live.turn_until(lambda: {live.job(one).state for one in (first, second)} == {JobState.RUNNING})
    assert live.job(first).placement == live.job(second).placement
    assert {live.finish(one).state for one in (first, second)} == {JobState.SUCCEEDED}
    live.turn_until(live.all_resources_are_free)


def test_gpu_that_does_not_work__is_named_and_given_back(live: LiveService, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where GPUs are only announced and nobody said that this is meant."""
    placer = live.dispatcher._placer
    monkeypatch.setattr(placer, "_config", replace(placer._config, is_cpu_only=False))
    job_id = live.submit(epochs=1, retry={"infrastructure": 0}, **TWO_WORKERS)
    job = live.finish(job_id)
    assert job.state == JobState.FAILED
    assert "but CUDA does not work there; XSAM_TRAINING__DEVICE=cpu" in str(job.failure_message)
    live.turn_until(live.all_resources_are_free)


def test_node_lost_in_mid_run__the_job_goes_on_elsewhere(live: LiveService, nodes: Nodes) -> None:
    job_id = live.submit(epochs=40, optimizer={"variant": "sam"}, resources={"gpus_per_worker": 1})
    live.reach_epoch(job_id, 2)
    (lost,) = live.job(job_id).placement or []
    nodes.remove(lost)
    job = live.finish(job_id)
    assert job.state == JobState.SUCCEEDED
    assert job.attempt == 2, [(a.number, a.failure_message) for a in live.attempts(job_id)]
    assert job.placement != [lost]
    assert lost not in {node.id for node in live.dispatcher.nodes}
    assert [row.epoch for row in live.epochs(job_id)] == list(range(1, 41))
    live.turn_until(live.all_resources_are_free)
