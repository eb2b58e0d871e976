"""Counts what ranks exchange, DDP's own collectives included."""

from collections import Counter
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Traffic(TorchDispatchMode):
    """Records the name and size of every collective that starts while it is active.

    Attributes:
        sizes: Per collective (`allreduce_`, `broadcast_`, ...), the number of elements of each call.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[str, list[int]] = {}
        self.num_bytes: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace in {"c10d", "_c10d_functional"}:
            tensors = [leaf for leaf in tree_leaves(args[0]) if hasattr(leaf, "numel")]
            name = func.name().split("::")[1].split(".")[0]
            self.sizes.setdefault(name, []).append(sum(t.numel() for t in tensors))
            self.num_bytes[name] += sum(t.numel() * t.element_size() for t in tensors)
        return func(*args, **(kwargs or {}))
