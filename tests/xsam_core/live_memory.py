"""Counts the bytes of all tensors that are alive, on any device."""

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):
    """Adds up the storages that are made, and takes them off when they die, while it is active.

    Attributes:
        live_bytes: Bytes alive now that were allocated since the start.
        peak_bytes: Largest `live_bytes` so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live_bytes = 0
        self.peak_bytes = 0
        self._sizes: dict[weakref.ref, int] = {}
        self._known: set[int] = set()

    def restart_peak(self) -> None:
        """Forget the peak so far; what is alive still counts."""
        self.peak_bytes = self.live_bytes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # What an operation gets and was never made here has been there before.
        self._note((args, kwargs), is_new=False)
        result = func(*args, **(kwargs or {}))
        self._note(result, is_new=True)
        return result

    def _note(self, tree: Any, *, is_new: bool) -> None:
        for leaf in tree_leaves(tree):
            if not isinstance(leaf, torch.Tensor) or leaf.untyped_storage()._cdata in self._known:
                continue
            storage = leaf.untyped_storage()
            key, size = storage._cdata, storage.nbytes() if is_new else 0
            self._known.add(key)
            self.live_bytes += size
            self.peak_bytes = max(self.peak_bytes, self.live_bytes)
            self._sizes[weakref.ref(storage, lambda ref, key=key: self._release(ref, key))] = size

    def _release(self, ref: weakref.ref, key: int) -> None:
        self.live_bytes -= self._sizes.pop(ref)
        self._known.discard(key)
