"""The resources of a run, held in Ray while it lasts."""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ray.actor import ActorHandle
from ray.exceptions import RayError
from ray.util.placement_group import placement_group, remove_placement_group

from xsam.services.jobs.queue import Lease
from xsam.services.specs.job import Resources
from xsam.workers.messages import sentence
from xsam.workers.runner.devices import devices_of

WAIT_S = 30.0
_PREFIX = "xsam-"


class NotPlacedError(Exception):
    """Ray could not give the resources in time."""


@dataclass(frozen=True, slots=True)
class PlacedRank:
    """A rank process and the GPUs it may use."""

    process: ActorHandle
    visible_devices: str = ""
    """A value of CUDA_VISIBLE_DEVICES: none on CPUs."""


def new_group_name(lease: Lease) -> str:
    """Return a name for a placement group of an attempt; those of trials are named after their study's.

    Each is new: Ray refuses a name that another group has, and a study's trials hold several at once.
    """
    return f"{_PREFIX}{lease.job_id}-{lease.attempt}-{secrets.token_hex(4)}"


def owner_of(name: str) -> tuple[str, int] | None:
    """Return the job and the attempt that `new_group_name` named a group after; None for any other name."""
    parts = name.removeprefix(_PREFIX).rsplit("-", 2)
    if not name.startswith(_PREFIX) or len(parts) != 3 or not parts[1].isdecimal():
        return None
    return parts[0], int(parts[1])


@contextmanager
def held_resources(
    resources: Resources, ranks: Sequence[ActorHandle], nodes: Sequence[str], *, owner: Lease
) -> Iterator[Sequence[PlacedRank]]:
    """Hold a placement group while the block runs; yield the run's ranks.

    Warm ranks run outside of it (they ask Ray for nothing themselves), so it is what makes their use known to Ray.

    Args:
        resources: what the run takes.
        ranks: warm rank processes, one per worker; a single one for several workers drives a worker group, which Ray
            Train places itself.
        nodes: Ray node of each worker; empty lets Ray choose.
        owner: the attempt after which the group is named; what is in Ray and belongs to no attempt is found by it.

    Raises:
        NotPlacedError: on entry, if Ray can't give the resources within half a minute.
    """
    if len(ranks) == 1 and resources.num_workers > 1:
        yield [PlacedRank(ranks[0])]
        return
    cpus, gpus = resources.cpus_per_worker, resources.gpus_per_worker
    share: dict[str, float] = {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}
    bundles = _bundles(resources, nodes)
    selectors = [{"ray.io/node-id": nodes[bundle[0]]} for bundle in bundles] if nodes else None
    options = {"strategy": "PACK", "name": new_group_name(owner), "bundle_label_selector": selectors}
    group = placement_group([{kind: n * len(bundle) for kind, n in share.items()} for bundle in bundles], **options)
    try:
        if not group.wait(WAIT_S):
            raise NotPlacedError(f"Ray did not give {resources.num_workers} x {share} within {WAIT_S:g} s")
        devices = [""] * len(ranks)
        if gpus:
            try:
                devices = devices_of(group, bundles, gpus_per_rank=gpus, nodes=nodes or [""] * len(ranks))
            except RayError as e:
                raise NotPlacedError(f"Ray gave {resources.num_workers} x {share}, but not which: {sentence(e)}") from e
        yield [PlacedRank(rank, visible) for rank, visible in zip(ranks, devices, strict=True)]
    finally:
        remove_placement_group(group)


def _bundles(resources: Resources, nodes: Sequence[str]) -> list[list[int]]:
    """Return the ranks of each bundle: one for each node, so that Ray is asked once a node which GPUs it gives.

    Of parts of a GPU Ray gives no more than one to a bundle, and without nodes it places each bundle as a whole: there
    each rank has its own.
    """
    if not nodes or not float(resources.gpus_per_worker).is_integer():
        return [[rank] for rank in range(resources.num_workers)]
    by_node: dict[str, list[int]] = {}
    for rank, node in enumerate(nodes):
        by_node.setdefault(node, []).append(rank)
    return list(by_node.values())
