"""How the passes of this rank meet those of other ranks: perturbation scope, shared alpha curve, drift.

Scopes (they are different algorithms):

- `global`: every gradient is averaged over ranks before it is used, k + 1 times a step; the maths of one
  big batch. DDP or FSDP2 does the averaging in backward.
- `local`: each rank climbs on its own batch and forms its own update direction; one all-reduce averages
  these. Known as m-sharpness (Foret et al. 2021, section 4.1): the smaller the share of a rank, the
  stronger the effect.

In both scopes the probe losses are averaged, so all ranks choose alpha from the same curve.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


class Scope(StrEnum):
    """Over which data the ascent climbs: all ranks' batches together, or each rank's own."""

    GLOBAL = "global"
    LOCAL = "local"


class Replicas:
    """This rank's view of the others.

    Args:
        model: The object the closure calls: DDP, FSDP2, compiled, plain, or None if not told.
        process_group: The ranks; None means the default group where there is one.
        scope: See the module's docstring.
    """

    def __init__(self, model: nn.Module | None, process_group: dist.ProcessGroup | None, scope: Scope) -> None:
        wrapped = getattr(model, "_orig_mod", model)
        self.ddp = wrapped if isinstance(wrapped, DistributedDataParallel) else None
        self.scope = scope
        self._process_group = process_group if self.ddp is None else self.ddp.process_group
        self._fsdp_modules = [m for m in model.modules() if hasattr(m, "reshard")] if model is not None else []

    @property
    def world_size(self) -> int:
        """Number of ranks; 1 where torch.distributed is not in use."""
        if not dist.is_available() or not dist.is_initialized():
            return 1
        return dist.get_world_size(self._process_group)

    @contextmanager
    def pass_context(self, *, is_first: bool, syncs_gradients: bool) -> Iterator[None]:
        """Run one micro-batch forward and backward, averaging gradients only where the scope wants it."""
        if self.ddp is None:
            yield
            return
        flags = (self.ddp.require_backward_grad_sync, self.ddp.require_forward_param_sync)
        self.ddp.require_backward_grad_sync = syncs_gradients and self.scope is Scope.GLOBAL
        # Buffers change in the first pass only, so that is where DDP has any to broadcast.
        self.ddp.require_forward_param_sync = is_first and flags[1]
        try:
            yield
        finally:
            self.ddp.require_backward_grad_sync, self.ddp.require_forward_param_sync = flags

    @contextmanager
    def probe_context(self) -> Iterator[None]:
        """Run a forward pass in which DDP does nothing."""
        with self.pass_context(is_first=False, syncs_gradients=False):
            yield

    def reshard(self) -> None:
        """Make FSDP2 gather the parameters anew before the next forward pass."""
        for module in self._fsdp_modules:
            module.reshard()  # type: ignore[operator]

    def mean_losses(self, losses: Sequence[Tensor]) -> list[float]:
        """Return the losses as floats, averaged over ranks with one small all-reduce."""
        stacked = torch.stack(list(losses)).float() if losses[0].element_size() < 4 else torch.stack(list(losses))
        if self.world_size > 1:
            dist.all_reduce(stacked, group=self._process_group)
            stacked /= self.world_size
        means: list[float] = stacked.tolist()
        return means
