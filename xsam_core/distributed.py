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
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from enum import StrEnum

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from xsam_core.model_parts import ModelParts

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
        parts: The model, in which wrappers are looked up.

    Args:
        parts: The model that the closure calls; it may be wrapped later.
        process_group: The ranks; None means DDP's group, else the default one where there is one.
        scope: See the module's docstring.
    """

    def __init__(self, parts: ModelParts, process_group: dist.ProcessGroup | None, scope: Scope) -> None:
        self.parts = parts
        self.is_local = scope is Scope.LOCAL
        self._named_group = process_group

    def __getstate__(self) -> dict[str, object]:
        """Leave the process group out: it cannot be copied, and a copy falls back to the default one."""
        return {**self.__dict__, "_named_group": None}

    @property
    def process_group(self) -> dist.ProcessGroup | None:
        """The ranks: those that were named, else DDP's; None is the default group."""
        if self._named_group is None and self.parts.ddp is not None:
            return self.parts.ddp.process_group
        return self._named_group

    @property
    def averages_passes(self) -> bool:
        """Whether averaging the gradients of each pass is left to the optimizer.

        So it is with a plain model on ranks that were named: nobody else averages its gradients.
        """
        is_plain = self.parts.is_told and self.parts.ddp is None and not self.parts.fsdp_modules
        return is_plain and self._named_group is not None and not self.is_local

    @property
    def world_size(self) -> int:
        """Number of ranks; 1 where torch.distributed is not in use."""
        if not dist.is_available() or not dist.is_initialized():
            return 1
        return dist.get_world_size(self.process_group)

    def pass_context(self, *, is_first: bool, syncs_gradients: bool) -> AbstractContextManager[None]:
        """Run one micro-batch forward and backward, averaging gradients only where the scope wants it."""
        ddp = self.parts.ddp
        if ddp is not None:
            # Buffers change in the first pass only, so only there DDP may have some to broadcast.
            return _ddp_flags(ddp, gradients=syncs_gradients and not self.is_local, buffers=is_first)
        if is_first and (not self.parts.is_found or (self.world_size > 1 and not self.parts.fsdp_modules)):
            return self._looking_for_ddp(gradients=syncs_gradients and not self.is_local)
        return nullcontext()

    @contextmanager
    def _looking_for_ddp(self, *, gradients: bool) -> Iterator[None]:
        """Run a forward pass in which a wrapper that nobody told us of is treated as one that we know."""
        with ExitStack() as stack:

            def treat(ddp: DistributedDataParallel) -> None:
                stack.enter_context(_ddp_flags(ddp, gradients=gradients, buffers=True))

            with self.parts.watching(treat):
                yield

    def probe_context(self) -> AbstractContextManager[None]:
        """Run a forward pass in which DDP exchanges nothing."""
        return self.pass_context(is_first=False, syncs_gradients=False)

    def reshard(self) -> None:
        """Make FSDP2 gather the parameters anew before the next forward pass."""
        for module in self.parts.fsdp_modules:
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
