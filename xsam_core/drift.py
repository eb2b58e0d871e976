"""A cheap sentinel: do all ranks still hold the same parameters, bit for bit?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from xsam_core.errors import ReplicaDriftError

_BITS_AS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def check_drift(param_groups: Sequence[dict[str, Any]], group: dist.ProcessGroup | None, step: int) -> None:
    """Compare a checksum of every parameter across ranks with one small all-reduce.

    Shards of DTensors differ by design and are left out.

    Raises:
        ReplicaDriftError: On all ranks alike; names the step and the first parameter that differs.
    """
    named = [
        (index, position, param)
        for index, param_group in enumerate(param_groups)
        for position, param in enumerate(param_group["params"])
        if not hasattr(param, "to_local")
    ]
    if not named:
        return
    sums = torch.stack([checksum(param).to(named[0][2].device) for _, _, param in named])
    # The maximum of the sums and of their negatives: equal everywhere exactly if max == min.
    extremes = torch.stack([sums, -sums])
    dist.all_reduce(extremes, op=dist.ReduceOp.MAX, group=group)
    differs = (extremes[0] != -extremes[1]).nonzero().flatten().tolist()
    if differs:
        index, position, _ = named[differs[0]]
        raise ReplicaDriftError(
            f"after step {step} ranks hold different values in {len(differs)} of {len(named)} parameters, "
            f"the first being parameter {position} of group {index}",
            step,
        )


def checksum(param: Tensor) -> Tensor:
    """Return the sum of the bit patterns of all elements as a 0-dim int64 tensor.

    Example:
        >>> checksum(torch.tensor([1.0])).item() == checksum(torch.tensor([1.0 + 2**-23])).item()
        False
    """
    real = torch.view_as_real(param.detach()) if param.is_complex() else param.detach()
    return real.view(_BITS_AS[real.element_size()]).sum(dtype=torch.int64)
