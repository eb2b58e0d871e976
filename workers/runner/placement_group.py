"""The resources of a run, held in Ray while it lasts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import ray
from ray.actor import ActorClass, ActorHandle
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from xsam.services.specs.job import Resources

WAIT_S = 30.0


class NotPlacedError(Exception):
    """Ray could not give the resources in time."""


@contextmanager
def held_resources(
    resources: Resources, ranks: Sequence[ActorHandle], nodes: Sequence[str], rank_actor: "ActorClass"
) -> Iterator[Sequence[ActorHandle]]:
    """Hold a placement group, one bundle per worker, while the block runs; yield the run's rank processes.

    Warm CPU ranks run outside of it (they ask Ray for nothing themselves), so it is what makes their use known to Ray.

    Args:
        resources: what the run takes.
        ranks: warm rank processes, one per worker; a single one for several workers drives a worker group, which Ray
            Train places itself; empty where each worker needs one of its own, which sees its bundle's GPUs.
        nodes: Ray node of each worker; empty lets Ray choose.
        rank_actor: class of such a process.

    Raises:
        NotPlacedError: on entry, if Ray can't give the resources within half a minute.
    """
    if len(ranks) == 1 and resources.num_workers > 1:
        yield ranks
        return
    cpus, gpus = resources.cpus_per_worker, resources.gpus_per_worker
    bundle: dict[str, float] = {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}
    selectors = [{"ray.io/node-id": node} for node in nodes] or None
    group = placement_group([bundle] * resources.num_workers, strategy="PACK", bundle_label_selector=selectors)
    own: list[ActorHandle] = []
    try:
        if not group.wait(WAIT_S):
            raise NotPlacedError(f"Ray did not give {resources.num_workers} x {bundle} within {WAIT_S:g} s")
        if not ranks:
            for index in range(resources.num_workers):
                strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)
                own.append(rank_actor.options(scheduling_strategy=strategy, num_cpus=cpus, num_gpus=gpus).remote())
        yield ranks or own
    finally:
        for rank in own:
            ray.kill(rank)
        remove_placement_group(group)
