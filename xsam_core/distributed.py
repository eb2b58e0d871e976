"""How the passes of this rank meet those of other ranks: perturbation scope and shared numbers.

Scopes (they are different algorithms):

- `global`: every gradient is averaged over ranks before it is used, k + 1 times a step; the maths of one
  big batch. DDP or FSDP2 averages in backward.
- `local`: each rank climbs on its own batch and forms its own update direction; one all-reduce averages
  these. Known as m-sharpness (Foret et al. 2021, section 4.1): with the batch per rank the strength of the
  method changes, with the number of ranks it does not.

In both scopes the probe losses are averaged, so all ranks choose alpha from the same curve.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import StrEnum

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

# As in DDP: large enough for bandwidth, small enough that several are under way at a time.
_BUCKET_BYTES = 25 * 1024 * 1024


class Scope(StrEnum):
    """Over which data the ascent climbs: all ranks' batches together, or each rank's own."""

    GLOBAL = "global"
    LOCAL = "local"


class Replicas:
    """This rank's view of the others.

    Attributes:
        is_local: Whether the scope is `local`.
        averages_passes: Whether averaging the gradients of each pass is left to the optimizer.
        process_group: The ranks.

    Args:
        model: The object the closure calls: DDP, FSDP2, compiled, plain, or None if not told.
        process_group: The ranks; None means DDP's group, else the default one where there is one.
        scope: See the module's docstring.
    """

    def __init__(self, model: nn.Module | None, process_group: dist.ProcessGroup | None, scope: Scope) -> None:
        wrapped = getattr(model, "_orig_mod", model)
        self._ddp = wrapped if isinstance(wrapped, DistributedDataParallel) else None
        self._fsdp_modules = [m for m in model.modules() if hasattr(m, "reshard")] if model is not None else []
        self.is_local = scope is Scope.LOCAL
        # A plain model on ranks that were named: nobody else averages its gradients.
        is_plain = model is not None and self._ddp is None and not self._fsdp_modules
        self.averages_passes = is_plain and process_group is not None and not self.is_local
        self.process_group = process_group
        if process_group is None and self._ddp is not None:
            self.process_group = self._ddp.process_group

    def __getstate__(self) -> dict[str, object]:
        """Leave the process group out: it cannot be copied, and a copy falls back to the default one."""
        return {**self.__dict__, "process_group": None}

    @property
    def world_size(self) -> int:
        """Number of ranks; 1 where torch.distributed is not in use."""
        if not dist.is_available() or not dist.is_initialized():
            return 1
        return dist.get_world_size(self.process_group)

    def pass_context(self, *, is_first: bool, syncs_gradients: bool) -> AbstractContextManager[None]:
        """Run one micro-batch forward and backward, averaging gradients only where the scope wants it."""
        if self._ddp is None:
            return nullcontext()
        # Buffers change in the first pass only, so only there DDP may have some to broadcast.
        return _ddp_flags(self._ddp, gradients=syncs_gradients and not self.is_local, buffers=is_first)

    def probe_context(self) -> AbstractContextManager[None]:
        """Run a forward pass in which DDP exchanges nothing."""
        return self.pass_context(is_first=False, syncs_gradients=False)

    def reshard(self) -> None:
        """Make FSDP2 gather the parameters anew before the next forward pass."""
        for module in self._fsdp_modules:
            module.reshard()  # type: ignore[operator]

    def mean_losses(self, losses: Sequence[Tensor]) -> list[float]:
        """Return the losses as floats, averaged over ranks with one small all-reduce."""
        stacked = torch.stack(list(losses))
        stacked = stacked.float() if stacked.element_size() < 4 else stacked
        if self.world_size > 1:
            dist.all_reduce(stacked, group=self.process_group)
            stacked /= self.world_size
        means: list[float] = stacked.tolist()
        return means

    def average_gradients(self, params: Iterable[Tensor], tail: Sequence[Tensor]) -> list[Tensor]:
        """Average every `.grad` over ranks in buckets, with a few numbers on board.

        Ranks must exchange the same tensors, so a parameter this rank did not reach sends zeros.

        Args:
            params: All parameters that take part, the same on every rank.
            tail: 0-dim tensors that ride in the first bucket.

        Returns:
            The means of `tail`.
        """
        world_size = self.world_size
        if world_size == 1:
            return list(tail)
        grads = []
        for param in params:
            if param.grad is None:
                param.grad = torch.zeros_like(param)
            grads.append(param.grad)
        buckets = bucketed(grads, _BUCKET_BYTES)
        flats = [torch.cat([g.reshape(-1) for g in bucket]) for bucket in buckets]
        flats[0] = torch.cat([flats[0], *(t.reshape(1).to(flats[0]) for t in tail)])
        works = [dist.all_reduce(flat, group=self.process_group, async_op=True) for flat in flats]
        for bucket, flat, work in zip(buckets, flats, works, strict=True):
            work.wait()
            flat.div_(world_size)
            pieces = flat[: sum(g.numel() for g in bucket)].split_with_sizes([g.numel() for g in bucket])
            torch._foreach_copy_(bucket, [p.view(g.shape) for p, g in zip(pieces, bucket, strict=True)])
        return list(flats[0][flats[0].numel() - len(tail) :]) if tail else []


@contextmanager
def _ddp_flags(ddp: DistributedDataParallel, *, gradients: bool, buffers: bool) -> Iterator[None]:
    """Say what DDP exchanges; `no_sync` alone would let a probe cancel the next step's broadcast of buffers."""
    kept = (ddp.require_backward_grad_sync, ddp.require_forward_param_sync)
    ddp.require_backward_grad_sync, ddp.require_forward_param_sync = gradients, buffers
    try:
        yield
    finally:
        ddp.require_backward_grad_sync, ddp.require_forward_param_sync = kept


def bucketed(tensors: Iterable[Tensor], max_bytes: int) -> list[list[Tensor]]:
    """Sort tensors into lists of one device and dtype of about `max_bytes` each, keeping their order.

    Example:
        >>> [len(b) for b in bucketed([torch.zeros(2), torch.zeros(2), torch.zeros(2)], 16)]
        [2, 1]
    """
    filled: list[list[Tensor]] = []
    open_buckets: dict[tuple[torch.device, torch.dtype], tuple[list[Tensor], int]] = {}
    for tensor in tensors:
        key, size = (tensor.device, tensor.dtype), tensor.numel() * tensor.element_size()
        bucket, used = open_buckets.get(key, ([], 0))
        if not bucket or used + size > max_bytes:
            bucket, used = [], 0
            filled.append(bucket)
        bucket.append(tensor)
        open_buckets[key] = (bucket, used + size)
    return filled
