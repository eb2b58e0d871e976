"""Puts together what the ranks of a run say of their GPUs: a job is judged by all of its GPUs, or not at all."""

from xsam.workers.messages import GpuUse


class RunGpuUse:
    """What each rank has said since all of them last had; one thread's.

    Where one rank can't measure its GPUs, nothing is known of the run's.

    Args:
        num_ranks: of the run, each with as many GPUs.
    """

    def __init__(self, num_ranks: int) -> None:
        self._num_ranks = num_ranks
        self._of_ranks: dict[int, GpuUse] = {}

    def put(self, use: GpuUse) -> GpuUse | None:
        """Take a rank's measurement; return that of all ranks once the last of them has come."""
        self._of_ranks[use.rank] = use
        if len(self._of_ranks) < self._num_ranks:
            return None
        uses = list(self._of_ranks.values())
        self._of_ranks.clear()
        return GpuUse(
            rank=0,
            utilization=sum(one.utilization for one in uses) / len(uses),
            busiest=max(one.busiest for one in uses),
            used_bytes=sum(one.used_bytes for one in uses),
            total_bytes=sum(one.total_bytes for one in uses),
        )
