"""Warm processes: actors whose imports are done, kept ready for the next job."""

import logging
import time
import uuid
from collections.abc import Callable

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from workers.ray_errors import sentence

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 2.0
LONGEST_PAUSE_S = 120.0


class WarmPool:
    """Idle actors of one kind, by node. Used from one thread.

    The actors are detached: a job must outlive the dispatcher that started it. They ask Ray for no resources; what a
    job uses is held by its reservation.

    Args:
        actor_class: an `@ray.remote` class with a `ready` method.
        kind: first part of the actors' names.
        size: idle actors to keep ready on each node.
        on_start: called with each new handle.
    """

    def __init__(
        self,
        actor_class: "ray.actor.ActorClass",
        kind: str,
        *,
        size: int,
        on_start: Callable[[ActorHandle], None] = lambda _: None,
    ) -> None:
        self._actor_class = actor_class
        self._kind = kind
        self._size = size
        self._on_start = on_start
        self._idle: dict[str, list[ActorHandle]] = {}
        self._starting: dict[ray.ObjectRef, tuple[str, ActorHandle]] = {}
        # A node on which processes fail to start (a broken install, no memory) is tried again ever more rarely.
        self._pause_s: dict[str, float] = {}
        self._not_before: dict[str, float] = {}

    @property
    def num_ready(self) -> int:
        """Idle actors that have finished their imports."""
        return sum(len(handles) for handles in self._idle.values())

    def take(self, node_id: str) -> ActorHandle:
        """Return an actor on the node: a warm one, else one that is starting, else a new one."""
        idle = self._idle.get(node_id)
        if idle:
            return idle.pop()
        for ref, (node, handle) in self._starting.items():
            if node == node_id:
                del self._starting[ref]
                return handle
        return self._start(node_id)

    def give_back(self, node_id: str, handle: ActorHandle) -> None:
        """Take an actor back that is fit for another job."""
        if len(self._idle.setdefault(node_id, [])) < self._size:
            self._idle[node_id].append(handle)
        else:
            ray.kill(handle)

    def refill(self, node_ids: list[str]) -> None:
        """Move actors that became ready to the idle ones, drop dead ones and start what is missing; never waits."""
        if self._starting:
            done, _ = ray.wait(list(self._starting), num_returns=len(self._starting), timeout=0)
            for ref in done:
                self._now_ready(ref, *self._starting.pop(ref))
        for gone in self._idle.keys() - set(node_ids):
            del self._idle[gone]
        for node_id in node_ids:
            if time.monotonic() < self._not_before.get(node_id, 0.0):
                continue
            starting = sum(1 for node, _ in self._starting.values() if node == node_id)
            for _ in range(self._size - len(self._idle.get(node_id, [])) - starting):
                handle = self._start(node_id)
                self._starting[handle.ready.remote()] = (node_id, handle)

    def drop_dead(self, timeout_s: float) -> None:
        """Ask every idle actor for a sign of life and forget those that give none."""
        for node_id, handles in self._idle.items():
            refs = {handle.ready.remote(): handle for handle in handles}
            done, silent = ray.wait(list(refs), num_returns=len(refs), timeout=timeout_s) if refs else ([], [])
            self._idle[node_id] = [refs[ref] for ref in done if _is_alive(ref)]
            for ref in silent:
                ray.kill(refs[ref])

    def close(self) -> None:
        """End all idle actors."""
        for handles in self._idle.values():
            for handle in handles:
                ray.kill(handle)
        for _, handle in self._starting.values():
            ray.kill(handle)
        self._idle.clear()
        self._starting.clear()

    def _start(self, node_id: str) -> ActorHandle:
        handle = self._actor_class.options(
            name=f"{self._kind}-{uuid.uuid4().hex[:12]}",
            lifetime="detached",
            num_cpus=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
        ).remote()
        self._on_start(handle)
        return handle

    def _now_ready(self, ref: ray.ObjectRef, node_id: str, handle: ActorHandle) -> None:
        if _is_alive(ref):
            self._idle.setdefault(node_id, []).append(handle)
            self._pause_s.pop(node_id, None)
            return
        pause_s = min(2 * self._pause_s.get(node_id, FIRST_PAUSE_S / 2), LONGEST_PAUSE_S)
        self._pause_s[node_id] = pause_s
        self._not_before[node_id] = time.monotonic() + pause_s


def _is_alive(ref: ray.ObjectRef) -> bool:
    try:
        ray.get(ref)
    except RayError as e:
        log.warning("a warm process did not start or died: %s", sentence(e))
        return False
    return True
