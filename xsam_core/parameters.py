"""Which parameters take part in a step, sorted into lists that foreach kernels can work on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from xsam_core.errors import SparseGradientError
from xsam_core.radius import Radius

# Types that are surely no DTensor; asking any other costs an attribute look-up that fails slowly.
_WHOLE = frozenset({Tensor, torch.nn.Parameter})


# Values that are worked on together where a processor's cache matters: theta, theta_0 and a gradient of so many
# fit the last cache, so that each later operation on them finds them there.
_BATCH_VALUES = 1 << 20

# Attribute of a gradient that a step has left in place: the version it had then.
_MARK = "_xsam_core_version"


class OriginMemory:
    """Where theta_0 is copied to.

    On the CPU the memory is kept from step to step, because getting it anew costs four times the copying: the
    kernel clears every page. CUDA's allocator keeps memory by itself, so there it is given back after each step.
    """

    def __init__(self) -> None:
        self._kept: dict[int, Tensor] = {}

    def like(self, values: Sequence[Tensor], owners: Sequence[Tensor]) -> list[Tensor]:
        """Return tensors of the shape, dtype, layout and device of `values`, with any content.

        Args:
            values: What is to be copied, all on one device.
            owners: The parameters they belong to; a value may be a view that is made anew in each step.
        """
        if not values[0].is_cpu:
            return [torch.empty_like(value) for value in values]
        found = []
        for value, owner in zip(values, owners, strict=True):
            kept = self._kept.get(id(owner))
            if kept is None or not _is_alike(kept, value):
                kept = self._kept[id(owner)] = torch.empty_like(value)
            found.append(kept)
        return found

    def forget_others(self, param_groups: Sequence[dict[str, Any]]) -> None:
        """Give back what belonged to parameters that are in no group any more, if there are any."""
        if len(self._kept) > sum(len(group["params"]) for group in param_groups):
            living = {id(param) for group in param_groups for param in group["params"]}
            self._kept = {key: kept for key, kept in self._kept.items() if key in living}


def _is_alike(x: Tensor, y: Tensor) -> bool:
    return x.dtype is y.dtype and x.shape == y.shape and x.stride() == y.stride()


@dataclass
class ParamSlice:
    """Parameters of one group that share a device, a dtype and a sharding.

    Attributes:
        group: The param group, read for adaptive, adaptive_eta, perturb and lr.
        radius: How far the group is moved in this step.
        params: The leaf parameters.
        values: Their storage as plain real tensors (of a DTensor: the local shard).
        memory: Where theta_0 is copied to.
        shard_groups: Process groups over which these shards add up to whole parameters; none if whole.
        grads: Gradients of the last pass, as plain real tensors; empty while a pass runs.
        first_grads: Copy of g_0, if the direction mixes it in; after `combine` what is taken beside the base
            optimizer's step, if there is such a part.
        origin: theta_0, once the ascent has begun; never filled if the slice is not perturbed.
        num_kept: Batches whose theta_0 has been copied to `origin`: the others have not been moved.
    """

    group: dict[str, Any]
    radius: Radius
    params: list[Tensor]
    values: list[Tensor]
    memory: OriginMemory
    shard_groups: tuple[ProcessGroup, ...] = ()
    grads: list[Tensor] = field(default_factory=list)
    first_grads: list[Tensor] = field(default_factory=list)
    origin: list[Tensor] = field(default_factory=list)
    num_kept: int = 0

    @cached_property
    def batches(self) -> list[slice]:
        """Ranges of the lists to work on one after the other: of a few values on the CPU, of all elsewhere.

        A model is larger than a CPU's caches. A chain of operations over all of it would fetch it from memory for
        each; over one batch after the other it fetches it once. A GPU wants few launches instead.
        """
        if not self.values[0].is_cpu:
            return [slice(None)]
        ends, num_values = [0], 0
        for index, value in enumerate(self.values):
            if num_values and num_values + value.numel() > _BATCH_VALUES:
                ends.append(index)
                num_values = 0
            num_values += value.numel()
        return [slice(*pair) for pair in pairwise([*ends, len(self.values)])]

    @property
    def is_perturbed(self) -> bool:
        """Whether the ascent moves this slice: `perturb` is true and rho is not 0."""
        return bool(self.group["perturb"]) and self.radius.ascent != 0

    @property
    def needs_unwrapping(self) -> bool:
        """Whether the maths happens on other tensor objects than the parameters: DTensors, complex numbers."""
        return self.values[0] is not self.params[0]

    def take_grads(self) -> None:
        """Look the gradients of the last pass up, if need be; a parameter the pass did not reach counts as zero."""
        if self.grads:
            return
        grads = []
        for param in self.params:
            grad = param.grad
            if grad is None:
                grad = param.grad = torch.zeros_like(param)
            grads.append(grad)
        self.grads = [plain(g) for g in grads] if self.needs_unwrapping else grads

    def batches_to_move(self) -> Iterator[slice]:
        """Yield each batch when its values may be moved: their theta_0 is kept."""
        if not self.origin:
            self.origin = self.memory.like(self.values, self.params)
        for index, batch in enumerate(self.batches):
            if index == self.num_kept:
                torch._foreach_copy_(self.origin[batch], self.values[batch])
                self.num_kept += 1
            yield batch

    def keep_origin(self) -> None:
        """Keep theta_0 of all batches; of those that have been moved it is kept already."""
        for _ in self.batches_to_move():
            pass

    def restore(self, batch: slice) -> None:
        """Put theta_0 back, bit for bit."""
        torch._foreach_copy_(self.values[batch], self.origin[batch])

    def forget_origin(self) -> None:
        """Let go of theta_0."""
        self.origin, self.num_kept = [], 0

    def drop_grads(self) -> None:
        """Let go of the gradients, so that the next pass finds their memory free."""
        self.grads = []
        clear_grads(self.params)


def clear_grads(params: Iterable[Tensor]) -> None:
    """Set every `.grad` to None."""
    for param in params:
        param.grad = None


def has_gradients(params: Iterable[Tensor]) -> bool:
    """Whether any `.grad` is there."""
    return any(param.grad is not None for param in params)


def mark_grads(params: Iterable[Tensor]) -> None:
    """Note on every `.grad` that it is what a step of ours has left there."""
    for param in params:
        grad = param.grad
        if grad is not None:
            setattr(grad, _MARK, grad._version)


def foreign_grads(params: Iterable[Tensor]) -> list[Tensor]:
    """Return every `.grad` that no step of ours has left there, or that has been changed since."""
    grads = [param.grad for param in params]
    return [grad for grad in grads if grad is not None and getattr(grad, _MARK, None) != grad._version]


def plain(tensor: Tensor) -> Tensor:
    """Return the real local tensor that shares the storage of `tensor`."""
    if type(tensor) not in _WHOLE and hasattr(tensor, "to_local"):
        tensor = tensor.to_local()
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def shard_groups(tensor: Tensor) -> tuple[ProcessGroup, ...]:
    """Return the process groups over which a DTensor is split (empty for a plain or replicated tensor)."""
    if type(tensor) in _WHOLE or not hasattr(tensor, "device_mesh"):
        return ()
    placements = enumerate(tensor.placements)  # type: ignore[attr-defined]
    return tuple(tensor.device_mesh.get_group(dim) for dim, place in placements if place.is_shard())


# A parameter, the index of its group and its position there.
Place = tuple[Tensor, int, int]


def places(param_groups: Sequence[dict[str, Any]]) -> list[Place]:
    """Return all parameters that may get a gradient, in the order of the groups."""
    return [
        (param, index, position)
        for index, group in enumerate(param_groups)
        for position, param in enumerate(group["params"])
        if param.requires_grad
    ]


def slices_with_grads(
    candidates: Sequence[Place],
    param_groups: Sequence[dict[str, Any]],
    radii: Sequence[Radius],
    memory: OriginMemory,
) -> tuple[list[ParamSlice], list[Place]]:
    """Sort parameters that have a gradient into slices, in the order of the groups; return the others as well.

    Raises:
        SparseGradientError: A gradient is sparse.
    """
    slices: dict[tuple[object, ...], ParamSlice] = {}
    without: list[Place] = []
    for place in candidates:
        param, index, position = place
        grad = param.grad
        if grad is None:
            without.append(place)
            continue
        if grad.layout is not torch.strided:
            raise SparseGradientError(
                f"parameter {position} of group {index} has a gradient of layout {grad.layout}; "
                "SAM needs dense gradients (nn.Embedding(..., sparse=False))"
            )
        split = shard_groups(param)
        key = (index, param.device, param.dtype, split)
        piece = slices.get(key)
        if piece is None:
            piece = slices[key] = ParamSlice(param_groups[index], radii[index], [], [], memory, split)
        piece.params.append(param)
        piece.values.append(plain(param))
    for piece in slices.values():
        piece.take_grads()
    return list(slices.values()), without
