"""The few collectives of a run; with one rank they do nothing."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from xsam.workers.messages import RankContext

_LAST_STEP = 2**62


class Ranks:
    """All ranks of a run, seen from one of them. Every method must be called by all of them in the same order."""

    def __init__(self, context: RankContext) -> None:
        self.is_first = context.rank == 0
        self.world_size = context.world_size
        self._device = context.device

    def sums(self, *values: Tensor | float) -> list[float]:
        """Return each value added up over the ranks, in float64; waits for the device."""
        return self._reduced(values, torch.float64, dist.ReduceOp.SUM)

    def maxima(self, *values: int) -> list[int]:
        """Return each value's maximum over the ranks."""
        return [int(value) for value in self._reduced(values, torch.int64, dist.ReduceOp.MAX)]

    def earliest(self, step: int) -> int:
        """Return the smallest step over the ranks, where 0 means none."""
        (latest,) = self.maxima(mirrored(step))
        return mirrored(latest)

    def from_first(self, value: int) -> int:
        """Return rank 0's value."""
        if self.world_size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.int64, device=self._device)
        dist.broadcast(shared, src=0)
        return int(shared.item())

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite the tensors with rank 0's."""
        if self.world_size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def gathered(self, content: bytes) -> list[bytes]:
        """Return every rank's content in rank 0, and nothing in the others."""
        if self.world_size == 1:
            return [content]
        contents: list[Any] | None = [None] * self.world_size if self.is_first else None
        dist.gather_object(content, contents, dst=0)
        return contents or []

    def wait(self) -> None:
        """Return when all ranks are here."""
        self.from_first(0)

    def _reduced(
        self, values: Iterable[Tensor | float], dtype: torch.dtype, operation: dist.ReduceOp.RedOpType
    ) -> list[float]:
        stacked = torch.stack([torch.as_tensor(v, dtype=dtype, device=self._device) for v in values])
        if self.world_size > 1:
            dist.all_reduce(stacked, op=operation)
        return stacked.tolist()


def mirrored(step: int) -> int:
    """Return the step's distance from the end of time, and back again; 0, for none, stays 0.

    The maximum of mirrored steps is the earliest step.
    """
    return _LAST_STEP - step if step else 0
