"""What a step has to know of the model that the closure calls: norm layers, other buffers, wrappers."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.parallel import DistributedDataParallel

from xsam_core.batch_norm import keeps_running_stats
from xsam_core.errors import ArgumentError


@dataclass(slots=True)
class _Buffer:
    """A buffer as it was before the first pass, and a copy of it as it was after."""

    holder: dict[str, Any]
    name: str
    tensor: Tensor
    version: int
    kept: Tensor | None = None


class ModelParts:
    """The parts of one model, or of all modules that the closure calls, looked up anew at each step.

    A model may be wrapped, sharded or grow between two steps. Without a model the modules are found by watching
    which ones the closure calls in the first pass of the first step.

    Attributes:
        ddp: DDP's wrapper, once it is known.
        norm_layers: Layers whose running statistics only the first pass of a step may update.
        fsdp_modules: Modules that FSDP2 shards.

    Args:
        model: What the closure calls, or what DDP or torch.compile wrap; None to find out.

    Raises:
        ArgumentError: The model is wrapped in FSDP1.
    """

    def __init__(self, model: nn.Module | None) -> None:
        self.is_told = model is not None
        self.ddp: DistributedDataParallel | None = None
        self.norm_layers: list[nn.Module] = []
        self.fsdp_modules: list[nn.Module] = []
        self._roots: list[nn.Module] = []
        self._known: set[int] = set()
        self._buffers: list[_Buffer] = []
        if model is not None:
            self._add(model)

    @property
    def is_found(self) -> bool:
        """Whether there is a model, told or found."""
        return bool(self._roots)

    def look(self) -> None:
        """Sort the modules as they are now; buffers are noted as they are before the first pass."""
        self.norm_layers, self.fsdp_modules, self._buffers = [], [], []
        self._known = set()
        for root in self._roots:
            self._sort(root)

    def keep_buffers(self) -> None:
        """Copy what the first pass has changed, so that the other passes leave no trace there.

        Running statistics have a way of their own (batch_norm.py); this is for spectral norms, observers and
        counters.
        """
        moved = []
        for buffer in self._buffers:
            now = buffer.holder.get(buffer.name)
            if now is not None and (now is not buffer.tensor or now._version != buffer.version):
                moved.append(_Buffer(buffer.holder, buffer.name, now, 0, now.clone()))
        self._buffers = moved

    def put_buffers_back(self) -> None:
        """Give the buffers that `keep_buffers` copied their values of then."""
        for buffer in self._buffers:
            if buffer.kept is not None:
                buffer.tensor.copy_(buffer.kept)
                buffer.holder[buffer.name] = buffer.tensor
        self._buffers = []

    @contextmanager
    def watching(self, on_ddp: Callable[[DistributedDataParallel], None]) -> Iterator[None]:
        """Find out which modules are called meanwhile in this thread.

        Args:
            on_ddp: Called with DDP's wrapper before its forward pass.
        """
        thread = threading.get_ident()

        def see(module: nn.Module, _: object) -> None:
            if torch.compiler.is_compiling() or threading.get_ident() != thread:
                return
            if isinstance(module, DistributedDataParallel) and self.ddp is None:
                self.ddp = module
                on_ddp(module)
            if not self.is_told and id(module) not in self._known and "_is_replica" not in vars(module):
                self._add(module)

        hook = register_module_forward_pre_hook(see)
        try:
            with warnings.catch_warnings():
                # That a hook fires twice for a compiled module does no harm here.
                warnings.filterwarnings("ignore", message=r"Using `torch\.compile\(module\)`")
                yield
        finally:
            hook.remove()

    def _add(self, root: nn.Module) -> None:
        self._roots.append(root)
        self._sort(root)

    def _sort(self, root: nn.Module) -> None:
        waiting: list[nn.Module | None] = [root]
        while waiting:
            module = waiting.pop()
            if module is None:
                continue
            if id(module) in self._known:
                continue
            self._known.add(id(module))
            waiting += module._modules.values()
            if module._buffers:
                if keeps_running_stats(module):
                    self.norm_layers.append(module)
                else:
                    self._note_buffers(module._buffers)
            if _may_wrap(type(module)):  # type: ignore[arg-type]  # torch types its modules as if they had no hash
                self._note_wrapper(module)

    def _note_wrapper(self, module: nn.Module) -> None:
        if hasattr(type(module), "reshard"):
            self.fsdp_modules.append(module)
        elif isinstance(module, DistributedDataParallel):
            self.ddp = module
        else:
            raise ArgumentError(
                f"model must not hold {type(module).__name__}: FSDP1 flattens parameters, so norms over them "
                "would be those of one rank's piece; use torch.distributed.fsdp.fully_shard"
            )

    def _note_buffers(self, holder: dict[str, Any]) -> None:
        for name, tensor in holder.items():
            if tensor is not None and not tensor.is_inference():
                self._buffers.append(_Buffer(holder, name, tensor, tensor._version))


@cache
def _may_wrap(kind: type[nn.Module]) -> bool:
    """Whether modules of this class wrap others; FSDP2 gives each module it shards a class of its own."""
    return hasattr(kind, "reshard") or issubclass(kind, DistributedDataParallel) or hasattr(kind, "summon_full_params")
