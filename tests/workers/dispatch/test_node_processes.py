"""Which nodes get processes in advance."""

from collections.abc import Iterator

import pytest
import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError

from tests.support.live_service import LiveService
from xsam.workers.dispatch import warm_pool
from xsam.workers.dispatch.warm_pool import NodeProcesses

pytestmark = pytest.mark.ray


@pytest.fixture
def processes(live: LiveService) -> Iterator[NodeProcesses]:
    """Processes beside the dispatcher's, of which none has been started."""
    started = NodeProcesses(size=1)
    yield started
    started.close()


def test_full_node__gets_no_rank_before_it_has_been_full_for_a_while(
    processes: NodeProcesses, live: LiveService, monkeypatch: pytest.MonkeyPatch
) -> None:
    (node,) = live.dispatcher.nodes
    full = {node.id: node.num_cpus}
    processes.refill([node], full)
    assert not processes.ranks._starting
    assert processes.runners._starting, "a runner costs little, and nothing is placed on a node that has none"
    monkeypatch.setattr(warm_pool, "REST_S", 0.0)
    processes.refill([node], full)
    assert processes.ranks._starting


def test_node_with_room__gets_its_rank_at_once(processes: NodeProcesses, live: LiveService) -> None:
    (node,) = live.dispatcher.nodes
    processes.refill([node], {node.id: node.num_cpus - 1})
    assert processes.ranks._starting


def _has_ended(process: ActorHandle) -> bool:
    try:
        ray.get(process.ready.remote())
    except RayActorError:
        return True
    return False


def test_standby__keeps_a_runner_and_no_rank_and_lets_go_what_it_had_when_it_led(live: LiveService) -> None:
    """A rank is most of a gigabyte, and only the dispatcher that leads hands any out."""
    (node,) = live.dispatcher.nodes
    processes = NodeProcesses(size=2)
    try:
        processes.refill([node], {}, is_leader=False)
        assert (len(processes.ranks._starting), len(processes.runners._starting)) == (0, 1)
        live.turn_until(lambda: processes.refill([node], {}) or processes.is_warm())
        kept = [handle for handles in processes.ranks._idle.values() for handle in handles]
        processes.refill([node], {}, is_leader=False)
        assert (processes.ranks.num_ready, processes.runners.num_ready) == (0, 1)
        live.turn_until(lambda: all(_has_ended(handle) for handle in kept))
    finally:
        processes.close()


def test_jobs_under_way__fill_their_nodes(live: LiveService) -> None:
    (node,) = live.dispatcher.nodes
    job_id = live.submit(epochs=200, resources={"num_workers": 2})
    live.reach_epoch(job_id, 1)
    assert live.dispatcher._in_flight.cpus_in_use() == {node.id: 2.0}
    live.cancel(job_id)
    live.finish(job_id)
    assert live.dispatcher._in_flight.cpus_in_use() == {}
