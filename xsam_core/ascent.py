"""The walk from theta_0 to theta_k and back inside one step, and the memory it uses.

One copy of theta_0 is the only model-sized buffer: the displacement is formed in the parameters, the update
gradient in `.grad`. A search of alpha needs one more, and g_0 (for directions that mix it in) another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from xsam_core.directions import Geometry, Weights
from xsam_core.functional import (
    NORM_EPS,
    Scalar,
    add_scaled_,
    angle_between,
    at_most,
    dot,
    root,
    scale_,
    slerp_weights,
    squares_and_product,
    sum_of_squares,
)
from xsam_core.parameters import OriginMemory, ParamSlice, places, slices_with_grads
from xsam_core.radius import Radius

# As torch.nn.utils.clip_grad_norm_.
_CLIP_EPS = 1e-6


class Ascent:
    """theta_0 and the way from it, alive from the end of the first backward pass to the base step.

    Order of calls: `climb` and a backward pass, k times; `measure`; maybe `probes`; `combine`; `restore`, which
    is safe at any point.
    """

    def __init__(
        self,
        param_groups: Sequence[dict[str, Any]],
        radii: Sequence[Radius],
        *,
        mixes_first: bool,
        memory: OriginMemory,
    ) -> None:
        """Collect the parameters that have a gradient now; others may join later."""
        memory.forget_others(param_groups)
        self._param_groups = param_groups
        self._radii = radii
        self._memory = memory
        self._mixes_first = mixes_first
        self._is_back = False
        self.slices, self._unreached = slices_with_grads(places(param_groups), param_groups, radii, memory)
        self._perturbed = [s for s in self.slices if s.is_perturbed]
        if mixes_first:
            for piece in self.slices:
                piece.first_grads = [g.clone() for g in piece.grads]

    def join_late(self) -> None:
        """Take up parameters whose first gradient came with the last pass; all they have missed are zeros.

        Stochastic depth and mixtures of experts reach other blocks in each pass.
        """
        if not self._unreached:
            return
        late, self._unreached = slices_with_grads(self._unreached, self._param_groups, self._radii, self._memory)
        for piece in late:
            if self._mixes_first and not self._is_back:
                piece.first_grads = [torch.zeros_like(g) for g in piece.grads]
        self.slices += late
        if not self._is_back:
            self._perturbed += [s for s in late if s.is_perturbed]

    def climb(self, num_steps: int) -> Scalar:
        """Move 1 / `num_steps` of the way up the gradients, drop them, and return their norm."""
        self.join_late()
        for piece in self.slices:
            piece.take_grads()
        norm = length = gradient_norm(self._perturbed)
        if any(s.group["adaptive"] for s in self._perturbed):
            for piece in self._perturbed:
                _scale_by_weights_(piece, slice(None))
            length = gradient_norm(self._perturbed)
        inverse = 1.0 / (length + NORM_EPS)
        for piece in self._perturbed:
            step = on_device_of(piece, inverse * (piece.radius.ascent / num_steps))
            for batch in piece.batches_to_move():
                _scale_by_weights_(piece, batch)
                add_scaled_(piece.values[batch], piece.grads[batch], step)
        for piece in self.slices:
            piece.drop_grads()
        return norm

    def measure(self) -> Geometry:
        """Take g_k up, turn the parameters into the displacement, and return norms and angles."""
        self.join_late()
        for piece in self.slices:
            piece.take_grads()
        for piece in self._perturbed:
            if not piece.origin:
                piece.keep_origin()
        squares = sum_up(self._perturbed, _displace_and_sum, num_terms=3)
        displacement_norm, last_norm = root(squares[0]), root(squares[1])
        angle = angle_between(squares[2], displacement_norm, last_norm)
        if self._mixes_first:
            pair = sum_up(self.slices, _gradient_sums, num_terms=2)
            return Geometry(displacement_norm, last_norm, angle, pair[0], pair[1])
        return Geometry(displacement_norm, last_norm, angle)

    def health(self, geometry: Geometry) -> Scalar:
        """Return a number that is finite exactly if all gradients of the last pass are."""
        rest = [s for s in self.slices if not s.is_perturbed]
        total = geometry.last_norm
        if geometry.first_dot_last is not None:
            total = total + geometry.first_dot_last
        return total + gradient_norm(rest) if rest else total

    def probes(self, geometry: Geometry) -> Probes:
        """Start a search of alpha; needs `measure` first and costs one more model copy while it lives."""
        return Probes(self._perturbed, geometry)

    def combine(self, weights: Weights) -> None:
        """Form the update gradient in `.grad`, spending the displacement and g_0, and put theta_0 back."""
        if weights.decoupled != 0.0:
            self._split_off(weights.decoupled)
            return
        last, first, displacement = weights.last, weights.first, weights.displacement
        for piece in self._perturbed:
            shares = on_device_of(piece, last), on_device_of(piece, displacement)
            for batch in piece.batches:
                scale_(piece.grads[batch], shares[0])
                add_scaled_(piece.grads[batch], piece.values[batch], shares[1])
                piece.restore(batch)
        rest = [s for s in self.slices if not s.is_perturbed]
        for piece in rest if self._mixes_first else ():
            scale_(piece.grads, on_device_of(piece, last))
        for piece in self.slices if self._mixes_first else ():
            add_scaled_(piece.grads, piece.first_grads, on_device_of(piece, first))
            piece.first_grads = []
        self._is_back = True

    def _split_off(self, share: float) -> None:
        """Leave g_0 in `.grad` and `share` * (g_k - g_0) for `take_decoupled`, and put theta_0 back.

        One tensor at a time, because all of them would be one more model copy.
        """
        for piece in self._perturbed:
            for batch in piece.batches:
                piece.restore(batch)
        for piece in self.slices:
            for grad, first in zip(piece.grads, piece.first_grads, strict=True):
                kept = first.clone()
                first.neg_().add_(grad).mul_(share)
                grad.copy_(kept)
        self._is_back = True

    def take_decoupled(self, health: Tensor | None) -> None:
        """Take the part that does not go through the base optimizer, with the plain learning rate.

        Args:
            health: Where it is not finite nothing is taken, without reading it; None if that is known to be good.
        """
        for piece in self.slices:
            if not piece.first_grads:
                continue
            if health is not None:
                is_finite = health.isfinite().to(piece.values[0].device)
                for part in piece.first_grads:
                    part.copy_(torch.where(is_finite, part, 0.0))
            lr = piece.group["lr"]
            add_scaled_(piece.values, piece.first_grads, on_device_of(piece, -lr))
            piece.first_grads = []

    def restore(self) -> None:
        """Put theta_0 back, bit for bit, where `combine` has not."""
        if not self._is_back:
            for piece in self._perturbed:
                for batch in piece.batches[: piece.num_kept]:
                    piece.restore(batch)

    def forget(self) -> None:
        """Free the copies of theta_0."""
        for piece in self.slices:
            piece.forget_origin()


class Probes:
    """Moves the parameters along the arc v(alpha) around theta_0, and back to the displacement."""

    def __init__(self, perturbed: Sequence[ParamSlice], geometry: Geometry) -> None:
        self._perturbed = perturbed
        self._displacements = [[v.clone() for v in piece.values] for piece in perturbed]
        self._angle = float(geometry.angle_rad)
        self._lengths = (float(geometry.displacement_norm), float(geometry.last_norm))

    def move_to(self, alpha: float) -> None:
        """Put theta_0 + rho_max * v(alpha) into the parameters."""
        c0, c1 = (float(c) for c in slerp_weights(self._angle, alpha))
        distance, grad_norm = self._lengths
        for piece, displacement in zip(self._perturbed, self._displacements, strict=True):
            radius = piece.radius.probe
            shares = radius * c0 / distance if distance else 0.0, radius * c1 / grad_norm if grad_norm else 0.0
            for batch in piece.batches:
                piece.restore(batch)
                add_scaled_(piece.values[batch], displacement[batch], shares[0])
                add_scaled_(piece.values[batch], piece.grads[batch], shares[1])

    def finish(self) -> None:
        """Put the displacement back into the parameters and free its copy."""
        for piece, displacement in zip(self._perturbed, self._displacements, strict=True):
            torch._foreach_copy_(piece.values, displacement)
        self._displacements = []


def gradient_norm(slices: Sequence[ParamSlice]) -> Scalar:
    """Return the Euclidean norm of the gradients of all slices together, over all shards."""
    return root(sum_up(slices, lambda piece: [sum_of_squares(piece.grads)], num_terms=1)[0])


def clip_(slices: Sequence[ParamSlice], max_norm: float) -> None:
    """Shrink the gradients of `slices` together to a norm of at most `max_norm`, over all shards.

    A part that is taken beside the base optimizer shrinks by the same factor.
    """
    factor = at_most(max_norm / (gradient_norm(slices) + _CLIP_EPS), 1.0)
    for piece in slices:
        scale_(piece.grads, on_device_of(piece, factor))
        if piece.first_grads:
            scale_(piece.first_grads, on_device_of(piece, factor))


def sum_up(slices: Sequence[ParamSlice], terms: Callable[[ParamSlice], list[Scalar]], num_terms: int) -> list[Scalar]:
    """Add each of the `terms` over slices, and over the ranks that hold other shards of them.

    Ranks sum one tensor per distinct sharding, however many terms it packs.
    """
    if len(slices) == 1 and not slices[0].shard_groups:
        return terms(slices[0])
    by_sharding: dict[tuple[dist.ProcessGroup, ...], list[Scalar]] = {}
    for piece in slices:
        values, known = terms(piece), by_sharding.get(piece.shard_groups)
        by_sharding[piece.shard_groups] = values if known is None else _added(known, values)
    totals: list[Scalar] = [0.0] * num_terms
    for groups, values in by_sharding.items():
        totals = _added(totals, _over_ranks(values, groups) if groups else values)
    return totals


def _added(xs: list[Scalar], ys: list[Scalar]) -> list[Scalar]:
    """Add elementwise; parts of a model that lie on several devices are added on the first one."""
    return [
        x + (y.to(x.device) if isinstance(x, Tensor) and isinstance(y, Tensor) else y)
        for x, y in zip(xs, ys, strict=True)
    ]


def _over_ranks(values: list[Scalar], groups: tuple[dist.ProcessGroup, ...]) -> list[Scalar]:
    tensors = [v for v in values if isinstance(v, Tensor)]
    packed = torch.stack(tensors) if tensors else torch.tensor(values, dtype=torch.float64)
    for group in groups:
        dist.all_reduce(packed, group=group)
    return list(packed.unbind()) if tensors else packed.tolist()


def _displace_and_sum(piece: ParamSlice) -> list[Scalar]:
    """Turn the values into the displacement, and return its square, that of the gradient and their product."""
    sums: list[Scalar] = []
    for batch in piece.batches:
        values, grads = piece.values[batch], piece.grads[batch]
        torch._foreach_sub_(values, piece.origin[batch])
        products = squares_and_product(values, grads)
        sums = _added(sums, products) if sums else products
    return sums


def _gradient_sums(piece: ParamSlice) -> list[Scalar]:
    return [dot(piece.first_grads, piece.grads), sum_of_squares(piece.grads)]


def _scale_by_weights_(piece: ParamSlice, batch: slice) -> None:
    """Multiply the gradients by T = |w| + eta if the slice is adaptive (ASAM); done twice, T^2 g.

    One tensor at a time, because all of T would be one more model copy.
    """
    if piece.group["adaptive"]:
        for grad, value in zip(piece.grads[batch], piece.values[batch], strict=True):
            grad.mul_(value.abs().add_(piece.group["adaptive_eta"]))


def on_device_of(piece: ParamSlice, scale: Scalar) -> Scalar:
    """Return `scale` where foreach kernels on the slice can use it."""
    return scale.to(piece.values[0].device) if isinstance(scale, Tensor) else scale
