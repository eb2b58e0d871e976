"""Warm processes: actors whose imports are done, kept ready for the next job."""

import logging
import time
import uuid
from collections.abc import Collection, Mapping, Sequence

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from xsam.services.cluster.service import NodeSeen
from xsam.workers.actors import RankActor, RunnerActor
from xsam.workers.messages import sentence
from xsam.workers.runner import devices
from xsam.workers.runner.devices import ProbeProcesses

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 2.0
LONGEST_PAUSE_S = 120.0
CALL_INTERVAL_S = 5.0
"""How often idle actors are asked for a sign of life."""
ANSWER_S = 1.0
"""A warm actor answers in a millisecond; one that takes longer is not handed out."""
REST_S = 60.0
"""After a node has become full, until ranks are started there for those at work. A start takes seconds of a
processor from them, and nobody could use it before one of them ends and comes back. One that doesn't is replaced."""
UNUSED_S = 1800.0
"""After code that a job brought, so long the next is expected to need as many actors that have done no work."""


class WarmPool:
    """Idle actors of one kind, by node. Used from one thread.

    The actors are detached: a job must outlive the dispatcher that started it. They ask Ray for no resources; what a
    job uses is held by its placement group.

    Args:
        actor_class: an `@ray.remote` class with a `ready` method.
        kind: first part of the actors' names.
        size: idle actors to keep ready on each node.
    """

    def __init__(self, actor_class: "ray.actor.ActorClass", kind: str, *, size: int) -> None:
        self._actor_class = actor_class
        self._kind = kind
        self._size = size
        self._idle: dict[str, list[ActorHandle]] = {}
        self._used: set[ActorHandle] = set()
        """Those here that have worked already."""
        self._num_unused_wanted = 0
        self._unused_until = 0.0
        self._starting: dict[ray.ObjectRef, tuple[str, ActorHandle]] = {}
        # Actors that were taken before they were ready: while they start, no others are started beside them.
        self._taken_early: dict[ray.ObjectRef, str] = {}
        self._calls: dict[ray.ObjectRef, tuple[str, ActorHandle]] = {}
        self._call_at = 0.0
        # A node on which processes fail to start (a broken install, no memory) is tried again ever more rarely.
        self._pause_s: dict[str, float] = {}
        self._not_before: dict[str, float] = {}

    @property
    def num_ready(self) -> int:
        """Idle actors that have finished their imports."""
        return sum(len(handles) for handles in self._idle.values())

    def has_ready(self, node_id: str) -> bool:
        """Return whether an actor of the node is idle, as far as is known without asking it."""
        return bool(self._idle.get(node_id))

    def take_answering(self, node_id: str) -> ActorHandle | None:
        """Return a warm actor that has just answered, or None: Ray counts a lost node as alive for many seconds."""
        idle = self._idle.get(node_id, [])
        while idle:
            handle = idle.pop()
            ref = handle.ready.remote()
            if not ray.wait([ref], timeout=ANSWER_S)[0]:
                self._starting[ref] = (node_id, handle)
                self._doubt(node_id)
                return None
            if _is_alive(ref):
                return handle
        return None

    def take(self, node_id: str) -> ActorHandle:
        """Return an actor on the node: a warm one (rather one that has worked), one that is starting, or a new one."""
        idle = self._idle.get(node_id)
        if idle:
            handle = next((one for one in reversed(idle) if one in self._used), idle[-1])
            idle.remove(handle)
            self._used.discard(handle)
            return handle
        return self._take_starting(node_id, is_unused=False) or self._start(node_id)

    def take_unused(self, node_id: str) -> ActorHandle:
        """Return an actor on the node that has done no work yet, warm or not."""
        idle = self._idle.get(node_id, [])
        for handle in idle:
            if handle not in self._used:
                idle.remove(handle)
                return handle
        return self._take_starting(node_id, is_unused=True) or self._start(node_id)

    def expect_unused(self, count: int) -> None:
        """Keep up to so many actors of each node ready that have done no work, for a while."""
        if time.monotonic() >= self._unused_until:
            self._num_unused_wanted = 0
        self._num_unused_wanted = max(self._num_unused_wanted, count)
        self._unused_until = time.monotonic() + UNUSED_S

    def _take_starting(self, node_id: str, *, is_unused: bool) -> ActorHandle | None:
        for ref, (node, handle) in self._starting.items():
            if node == node_id and not (is_unused and handle in self._used):
                del self._starting[ref]
                self._used.discard(handle)
                self._taken_early[ref] = node
                return handle
        return None

    def give_back(self, node_id: str, handle: ActorHandle) -> None:
        """Take an actor back that is fit for another job."""
        if self._keep(node_id, handle):
            self._used.add(handle)

    def _keep(self, node_id: str, handle: ActorHandle) -> bool:
        idle = self._idle.setdefault(node_id, [])
        if len(idle) >= self._size and handle not in self._used and self._num_unused_missing(node_id, self._size):
            self._end(idle, next(one for one in idle if one in self._used))
        if len(idle) < self._size:
            idle.append(handle)
            return True
        ray.kill(handle)
        return False

    def _end(self, idle: list[ActorHandle], handle: ActorHandle) -> None:
        idle.remove(handle)
        self._used.discard(handle)
        ray.kill(handle)

    def _num_unused_missing(self, node_id: str, wanted: int, starting: Sequence[ray.ObjectRef] = ()) -> int:
        """Return how many actors without work behind them are expected on a node and neither idle nor starting."""
        if time.monotonic() >= self._unused_until:
            return 0
        there = [*self._idle.get(node_id, []), *(self._starting[ref][1] for ref in starting)]
        num_unused = sum(1 for handle in there if handle not in self._used)
        return max(0, min(self._num_unused_wanted, wanted) - num_unused)

    def refill(self, node_ids: Sequence[str], *, resting: Collection[str] = (), size: int | None = None) -> None:
        """Move actors that became ready to the idle ones, drop dead ones and start what is missing; never waits.

        Args:
            node_ids: all nodes there are.
            resting: those on which nothing is started now.
            size: idle actors to have on each node, those beyond it end; by default as many as are kept.
        """
        wanted = self._size if size is None else min(size, self._size)
        for ref in _done(self._starting):
            self._now_ready(ref, *self._starting.pop(ref))
        for ref in _done(self._taken_early):
            del self._taken_early[ref]
        self._drop_dead()
        for gone in self._idle.keys() - set(node_ids):
            del self._idle[gone]
        for node_id in node_ids:
            starting = [ref for ref, (node, _) in self._starting.items() if node == node_id]
            self._end_surplus(node_id, starting, wanted)
            num_ready = len(self._idle.get(node_id, []))
            if node_id in resting or time.monotonic() < self._not_before.get(node_id, 0.0):
                continue
            num_early = list(self._taken_early.values()).count(node_id)
            num_missing = wanted - num_ready - len(starting)
            num_missing = max(num_missing, self._num_unused_missing(node_id, wanted, starting))
            for _ in range(num_missing - num_early):
                handle = self._start(node_id)
                self._starting[handle.ready.remote()] = (node_id, handle)

    def _end_surplus(self, node_id: str, starting: list[ray.ObjectRef], wanted: int) -> None:
        idle = self._idle.get(node_id, [])
        while len(idle) > wanted:
            self._end(idle, idle[-1])
        num_kept = max(wanted - len(idle), self._num_unused_missing(node_id, wanted))
        for ref in starting[num_kept:]:
            ray.kill(self._starting.pop(ref)[1])  # those it was started for have come back
        del starting[num_kept:]

    def close(self) -> None:
        """End all idle actors."""
        for handles in self._idle.values():
            for handle in handles:
                ray.kill(handle)
        for _, handle in self._starting.values():
            ray.kill(handle)
        self._idle.clear()
        self._starting.clear()

    def _doubt(self, node_id: str) -> None:
        """Treat all idle actors of a node like starting ones: they come back when they answer."""
        for handle in self._idle.pop(node_id, []):
            self._starting[handle.ready.remote()] = (node_id, handle)

    def _drop_dead(self) -> None:
        """Look at the last round of calls to idle actors, forget those that have died, and call again after a while."""
        for ref in _done(self._calls):
            node_id, handle = self._calls.pop(ref)
            if not _is_alive(ref) and handle in self._idle.get(node_id, []):
                self._idle[node_id].remove(handle)
                self._used.discard(handle)
        if not self._calls and time.monotonic() >= self._call_at:
            self._call_at = time.monotonic() + CALL_INTERVAL_S
            idle = [(node_id, handle) for node_id, handles in self._idle.items() for handle in handles]
            self._calls = {handle.ready.remote(): (node_id, handle) for node_id, handle in idle}

    def _start(self, node_id: str) -> ActorHandle:
        return self._actor_class.options(
            name=f"{self._kind}-{uuid.uuid4().hex[:12]}",
            lifetime="detached",
            num_cpus=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
        ).remote()

    def _now_ready(self, ref: ray.ObjectRef, node_id: str, handle: ActorHandle) -> None:
        if _is_alive(ref):
            self._keep(node_id, handle)
            self._pause_s.pop(node_id, None)
            return
        pause_s = min(2 * self._pause_s.get(node_id, FIRST_PAUSE_S / 2), LONGEST_PAUSE_S)
        self._pause_s[node_id] = pause_s
        self._not_before[node_id] = time.monotonic() + pause_s


class NodeProcesses:
    """A dispatcher's warm runners and ranks on each node.

    Args:
        size: idle runners and ranks to keep on each node.
    """

    def __init__(self, *, size: int) -> None:
        self._size = size
        self.runners = WarmPool(RunnerActor, "runner", size=size)
        self.ranks = WarmPool(RankActor, "rank", size=size)
        self._full_since: dict[str, float] = {}
        self._probes = ProbeProcesses()
        self._probe_at = 0.0

    def refill(self, nodes: Sequence[NodeSeen], cpus_in_use: Mapping[str, float], *, is_leader: bool = True) -> None:
        """Start what is missing, but for ranks on nodes that have just become full; never waits.

        Args:
            nodes: all that are alive.
            cpus_in_use: what this dispatcher's jobs hold, by node.
            is_leader: whether its dispatcher places jobs; one that stands by keeps a runner on each node, which lets it
                begin at once, and no ranks, which take the most memory.
        """
        now = time.monotonic()
        full = [node.id for node in nodes if node.num_cpus - 1.0 < cpus_in_use.get(node.id, 0.0)]
        self._full_since = {node_id: self._full_since.get(node_id, now) for node_id in full}
        node_ids = [node.id for node in nodes]
        resting = {n for n, since in self._full_since.items() if now - since < REST_S}
        self.runners.refill(node_ids, size=None if is_leader else 1)
        self.ranks.refill(node_ids, resting=resting, size=None if is_leader else 0)
        if is_leader and now >= self._probe_at:
            self._probe_at = now + devices.CALL_INTERVAL_S
            self._probes.call([node.id for node in nodes if node.num_gpus])

    def is_warm(self) -> bool:
        """Return whether the first job would find its processes ready."""
        return self.runners.num_ready >= self._size and self.ranks.num_ready >= self._size

    def close(self) -> None:
        """End all idle processes."""
        self.runners.close()
        self.ranks.close()


def _done(refs: Mapping[ray.ObjectRef, object]) -> list[ray.ObjectRef]:
    return ray.wait(list(refs), num_returns=len(refs), timeout=0)[0] if refs else []


def _is_alive(ref: ray.ObjectRef) -> bool:
    try:
        ray.get(ref)
    except RayError as e:
        log.warning("a warm process did not start or died: %s", sentence(e))
        return False
    return True
