"""Several nodes with logical GPUs on one machine: placement, and the loss of a node."""

from collections.abc import Iterator

import pytest

from tests.support.live_service import LiveService, Nodes, live_service
from xsam.services.jobs.states import JobState

pytestmark = [pytest.mark.ray, pytest.mark.slow]


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
    with live_service(folder, num_cpus=None, warm_processes=1, address=nodes.address) as started:
        yield started


def test_cpu_job__is_placed_away_from_gpus(live: LiveService) -> None:
    job_id = live.submit(epochs=1, optimizer={"variant": "sgd"})
    live.turn_until(lambda: live.job(job_id).state == JobState.RUNNING)
    (node_id,) = live.job(job_id).placement or []
    gpus = {node.id: node.num_gpus for node in live.dispatcher.nodes}
    assert gpus[node_id] == 0
    assert live.finish(job_id).state == JobState.SUCCEEDED


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
