"""Warm processes are handed out only when they have just answered."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError

from tests.support.live_service import LiveService
from tests.support.processes import stopped
from xsam.workers.dispatch.warm_pool import WarmPool

pytestmark = pytest.mark.ray

PATIENCE_S = 60.0


class Process:
    """What a pool keeps, with nothing to import."""

    def ready(self) -> int:
        """Return the process's id."""
        return os.getpid()


@pytest.fixture
def node_id(live: LiveService) -> str:
    """The only node of a local cluster."""
    return live.dispatcher.nodes[0].id


@pytest.fixture
def pool(node_id: str) -> Iterator[WarmPool]:
    """A pool with two processes ready."""
    started = WarmPool(ray.remote(Process), "test", size=2)
    _refill_until(started, node_id, lambda: started.num_ready == 2)
    yield started
    started.close()


def test_take_answering__gives_what_is_ready_and_none_when_nothing_is(pool: WarmPool, node_id: str) -> None:
    handles = [pool.take_answering(node_id) for _ in range(3)]
    assert None not in handles[:2]
    assert handles[2] is None


def test_dead_process__is_passed_over_at_once(pool: WarmPool, node_id: str) -> None:
    first, last = pool._idle[node_id]
    ray.kill(last)
    _await_death(last)
    assert pool.take_answering(node_id) == first


def test_silent_process__is_kept_back_with_its_node_until_it_answers(pool: WarmPool, node_id: str) -> None:
    pids = {handle: ray.get(handle.ready.remote()) for handle in pool._idle[node_id]}
    with stopped(list(pids.values())):
        assert pool.take_answering(node_id) is None
        assert not pool.has_ready(node_id), "the others of its node are doubted too, or each would be waited for"
        pool.refill([node_id])
        assert pool.num_ready == 0
    _refill_until(pool, node_id, lambda: pool.num_ready == 2)
    assert pool.take_answering(node_id) in pids, "they came back, nothing was started in their place"


def test_processes_that_come_back__end_those_that_start_in_their_place(pool: WarmPool, node_id: str) -> None:
    taken = [pool.take(node_id), pool.take(node_id)]
    pool.refill([node_id])
    in_their_place = [handle for _, handle in pool._starting.values()]
    assert len(in_their_place) == 2
    for handle in taken:
        pool.give_back(node_id, handle)
    pool.refill([node_id])
    for handle in in_their_place:
        _await_death(handle)
    assert pool.num_ready == 2


def test_resting_node__gets_no_process(pool: WarmPool, node_id: str) -> None:
    pool.take(node_id)
    pool.refill([node_id], resting=[node_id])
    assert not pool._starting
    _refill_until(pool, node_id, lambda: pool.num_ready == 2)


def test_code_of_a_job__finds_a_process_that_has_not_worked_though_all_have(pool: WarmPool, node_id: str) -> None:
    worked = [pool.take(node_id), pool.take(node_id)]
    for handle in worked:
        pool.give_back(node_id, handle)
    pool.refill([node_id])
    assert not pool._starting, "without such code nothing is started in the place of what works"
    pool.expect_unused(1)
    _refill_until(pool, node_id, lambda: not set(pool._idle[node_id]) <= set(worked))
    assert pool.num_ready == 2, "one of those that have worked has made room"
    assert pool.take(node_id) in worked, "what has worked works again"
    assert pool.take_unused(node_id) not in worked
    pool.refill([node_id])
    assert len(pool._starting) == 2


def _await_death(handle: ActorHandle) -> None:
    with suppress(RayActorError):
        while True:
            ray.get(handle.ready.remote())


def _refill_until(pool: WarmPool, node_id: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        pool.refill([node_id])
        time.sleep(0.05)
