"""Which GPUs each bundle of a placement group has: Ray tells only a process that it starts there.

Light: Ray runs `_visible_devices` in a process of its own pool, which imports this module.
"""

from collections.abc import Collection, Sequence

import ray
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

WAIT_S = 30.0
CALL_INTERVAL_S = 5.0
"""Ray ends processes of its pool that have been idle, the longest idle first."""


def _visible_devices() -> str:
    """Return the GPUs of the calling process as a value of CUDA_VISIBLE_DEVICES."""
    return ",".join(ray.get_runtime_context().get_accelerator_ids().get("GPU", ()))


# By default Ray ends a process after one task with GPUs, lest it keeps memory there; this one touches none.
_probe = ray.remote(num_cpus=0, max_calls=0, max_retries=0)(_visible_devices)


def devices_of(
    group: PlacementGroup, bundles: Sequence[Sequence[int]], *, gpus_per_rank: float, nodes: Sequence[str]
) -> list[str]:
    """Return for each rank its GPUs as a value of CUDA_VISIBLE_DEVICES; they stay its own as long as the group lives.

    Args:
        group: has its resources.
        bundles: the ranks of each bundle, all on one node.
        gpus_per_rank: of all ranks; a part of one only where each rank has a bundle of its own.
        nodes: where each rank is. Bundles of one node are asked one after the other, since one process is ready there.

    Raises:
        RayError: Ray could not start a process there, or did not within half a minute.
    """
    found = [""] * len(nodes)
    for turn in _turns([nodes[bundle[0]] for bundle in bundles]):
        asked = [_ask(group, index, gpus_per_rank * len(bundles[index])) for index in turn]
        for index, devices in zip(turn, ray.get(asked, timeout=WAIT_S), strict=True):
            given, ranks = devices.split(","), bundles[index]
            each = len(given) // len(ranks)
            for place, rank in enumerate(ranks):
                found[rank] = ",".join(given[place * each : (place + 1) * each])
    return found


def _turns(nodes: Sequence[str]) -> list[list[int]]:
    """Return the indices of the bundles such that each turn has at most one on each node."""
    turns: list[list[int]] = []
    for index, node in enumerate(nodes):
        turn = nodes[:index].count(node)
        if turn == len(turns):
            turns.append([])
        turns[turn].append(index)
    return turns


def _ask(group: PlacementGroup, index: int, gpus: float) -> ray.ObjectRef:
    strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)
    return _probe.options(num_gpus=gpus, scheduling_strategy=strategy).remote()


class ProbeProcesses:
    """Keeps a process of Ray's pool ready on nodes by calling it now and then; one thread's.

    It answers within milliseconds; a new one takes half a second and more, which every job on GPUs would pay.
    """

    def __init__(self) -> None:
        self._calls: dict[str, ray.ObjectRef] = {}

    def call(self, node_ids: Collection[str]) -> None:
        """Call once on each of these nodes, but for those where an earlier call has not been answered; never waits."""
        open_calls = list(self._calls.values())
        done = set(ray.wait(open_calls, num_returns=len(open_calls), timeout=0)[0]) if open_calls else set()
        self._calls = {n: ref for n, ref in self._calls.items() if n in node_ids and ref not in done}
        for node_id in node_ids:
            if node_id not in self._calls:
                strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
                self._calls[node_id] = _probe.options(scheduling_strategy=strategy).remote()
