"""The resources of a run, held in Ray while it lasts."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from ray.actor import ActorHandle
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from xsam.services.specs.job import Resources
from xsam.workers.actors import RankActor

WAIT_S = 30.0


class NotPlacedError(Exception):
    """Ray could not give the resources in time."""


class HeldResources:
    """A placement group with one bundle per worker, each on its node; removed when the block ends.

    Warm CPU ranks run outside of it (they ask Ray for nothing themselves), so it is what makes their use known to Ray.

    Args:
        resources: what each worker takes.
        nodes: Ray node of each worker; empty lets Ray choose.

    Raises:
        NotPlacedError: on entry, if Ray can't give the resources within half a minute.
    """

    def __init__(self, resources: Resources, nodes: Sequence[str]) -> None:
        bundle: dict[str, float] = {"CPU": resources.cpus_per_worker}
        if resources.gpus_per_worker:
            bundle["GPU"] = resources.gpus_per_worker
        self._bundle = bundle
        self._bundles = [bundle] * resources.num_workers
        self._selectors = [{"ray.io/node-id": node} for node in nodes] or None
        self._group: PlacementGroup | None = None

    def __enter__(self) -> Self:
        self._group = placement_group(self._bundles, strategy="PACK", bundle_label_selector=self._selectors)
        if not self._group.wait(WAIT_S):
            self._remove()
            raise NotPlacedError(f"Ray did not give {len(self._bundles)} x {self._bundle} within {WAIT_S:g} s")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._remove()

    def new_rank(self, index: int) -> ActorHandle:
        """Start a rank process inside a bundle, with the bundle's GPUs visible to it."""
        options: dict[str, Any] = {"num_cpus": self._bundle["CPU"], "num_gpus": self._bundle.get("GPU", 0)}
        strategy = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=index)
        return RankActor.options(scheduling_strategy=strategy, **options).remote()

    def _remove(self) -> None:
        if self._group is not None:
            remove_placement_group(self._group)
            self._group = None
