"""Keeps GPUs that do not work from jobs: a node's are checked before the first run, and again after they failed one."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError

from xsam.services.cluster.service import NodeSeen
from xsam.workers.dispatch.warm_pool import WarmPool
from xsam.workers.messages import DeviceFinding, sentence

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 30.0
LONGEST_PAUSE_S = 600.0
CHECK_S = 120.0
"""A driver that hangs answers nothing at all."""
UNCHECKED = "they are being checked"


@dataclass(slots=True)
class _Check:
    """What is known of one node."""

    fault: str | None = UNCHECKED
    gpu_memory_gb: float = 0.0
    due_at: float | None = 0.0
    """When to check (again); None while they work."""
    num_failed: int = 0
    rank: ActorHandle | None = None
    answer: ray.ObjectRef | None = None
    asked_at: float = 0.0


class DeviceChecks:
    """What is known of each node's GPUs. Used from the dispatcher's thread.

    A check takes a warm rank of the node, which ends afterwards: a process that has seen all GPUs would keep them.

    Args:
        ranks: where warm ranks come from.
        is_on: whether anything trains on GPUs at all.
    """

    def __init__(self, ranks: WarmPool, *, is_on: bool) -> None:
        self._ranks = ranks
        self._is_on = is_on
        self._checks: dict[str, _Check] = {}

    def fault(self, node_id: str) -> str | None:
        """Return why jobs must not get the node's GPUs; None if they may, or if it has none."""
        check = self._checks.get(node_id)
        return None if check is None else check.fault

    def gpu_memory_gb(self, node_id: str) -> float:
        """Return how much memory each of the node's GPUs has, in 10^9 bytes; 0 where nobody has found out."""
        check = self._checks.get(node_id)
        return 0.0 if check is None else check.gpu_memory_gb

    def doubt(self, node_id: str) -> None:
        """Have a node checked again before the next run: a run has failed on its GPUs."""
        if self._is_on and node_id in self._checks:
            self._end(self._checks[node_id])
            self._checks[node_id] = _Check(gpu_memory_gb=self._checks[node_id].gpu_memory_gb)

    def look(self, nodes: Sequence[NodeSeen]) -> None:
        """Take answers, and start the checks that are due; never waits."""
        if not self._is_on:
            return
        seen = {node.id: node for node in nodes if node.num_gpus}
        for gone in self._checks.keys() - seen.keys():
            self._end(self._checks.pop(gone))
        for node_id, node in seen.items():
            check = self._checks.setdefault(node_id, _Check())
            if check.answer is not None:
                self._take(node, check)
            elif check.due_at is not None and time.monotonic() >= check.due_at and self._ranks.has_ready(node_id):
                check.rank = self._ranks.take(node_id)
                check.answer = check.rank.check_devices.remote(int(node.num_gpus))
                check.asked_at = time.monotonic()

    def _take(self, node: NodeSeen, check: _Check) -> None:
        is_late = time.monotonic() - check.asked_at > CHECK_S
        if not is_late and not ray.wait([check.answer], timeout=0)[0]:
            return
        late = DeviceFinding(f"their check did not end within {CHECK_S:g} s")
        found = late if is_late else _answer(check.answer)
        self._end(check)
        fault, check.gpu_memory_gb = found.fault, found.gpu_memory_gb or check.gpu_memory_gb
        if fault != check.fault:
            log.log(logging.WARNING if fault else logging.INFO, "GPUs of %s: %s", node.host, fault or "they work")
        check.fault = fault
        pause_s = min(FIRST_PAUSE_S * 2**check.num_failed, LONGEST_PAUSE_S)
        check.due_at = None if fault is None else time.monotonic() + pause_s
        check.num_failed += 1

    def _end(self, check: _Check) -> None:
        if check.rank is not None:
            ray.kill(check.rank)
        check.rank = check.answer = None


def _answer(ref: ray.ObjectRef) -> DeviceFinding:
    try:
        found: DeviceFinding = ray.get(ref)
    except RayError as e:
        return DeviceFinding(f"the process that checked them died: {sentence(e)}")
    return found
