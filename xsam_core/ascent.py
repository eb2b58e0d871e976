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
    accumulation_dtype,
    add_scaled_,
    angle_between,
    dot,
    host_scalar,
    host_scalars,
    root,
    scale_,
    slerp_weights,
    sum_of_squares,
)
from xsam_core.parameters import ParamSlice, slices_with_grads


class Ascent:
    """theta_0 and the way from it, alive from the end of the first backward pass to the base step.

    Order of calls: `climb` and a backward pass, k times; `measure`; maybe `probes`; `combine`; `restore`, which
    is safe at any point.
    """

    def __init__(self, param_groups: Sequence[dict[str, Any]], mixes_first: bool, like: Tensor) -> None:
        """Collect the parameters that have a gradient now; `like` gives the device of empty sums."""
        self.slices = slices_with_grads(param_groups)
        self._perturbed = [s for s in self.slices if s.is_perturbed]
        self._mixes_first = mixes_first
        self._zero = torch.zeros((), dtype=accumulation_dtype(like.dtype), device=like.device)
        self._geometry: Geometry | None = None
        if self._mixes_first:
            for piece in self.slices:
                piece.first_grads = [g.clone() for g in piece.grads]

    def climb(self, num_steps: int) -> Tensor:
        """Move 1 / `num_steps` of the way up the gradients, drop them, and return their norm."""
        for piece in self.slices:
            piece.take_grads()
        norm = sum_up(self._perturbed, lambda s: sum_of_squares(s.grads), self._zero).sqrt()
        length = norm
        if any(s.group["adaptive"] for s in self._perturbed):
            for piece in self._perturbed:
                _scale_by_weights_(piece)
            length = sum_up(self._perturbed, lambda s: sum_of_squares(s.grads), self._zero).sqrt()
        inverse = 1.0 / (host_scalar(length) + NORM_EPS)
        for piece in self._perturbed:
            piece.keep_origin()
            _scale_by_weights_(piece)
            add_scaled_(piece.values, piece.grads, on_device_of(piece, inverse * (piece.group["rho"] / num_steps)))
        for piece in self.slices:
            piece.drop_grads()
        return norm

    def measure(self) -> Geometry:
        """Take g_k up, turn the parameters into the displacement, and return norms and angles."""
        for piece in self.slices:
            piece.take_grads()
        for piece in self._perturbed:
            torch._foreach_sub_(piece.values, piece.origin)
        squares = host_scalars(sum_up(self._perturbed, _displacement_sums, self._zero.expand(3)))
        displacement_norm, last_norm = root(squares[0]), root(squares[1])
        angle = angle_between(squares[2], displacement_norm, last_norm)
        if self._mixes_first:
            pair = host_scalars(sum_up(self.slices, _gradient_sums, self._zero.expand(2)))
            return Geometry(displacement_norm, last_norm, angle, pair[0], pair[1])
        return Geometry(displacement_norm, last_norm, angle)

    def health(self, geometry: Geometry) -> Scalar:
        """Return a number that is finite exactly if all gradients of the last pass are."""
        rest = [s for s in self.slices if not s.is_perturbed]
        total = geometry.last_norm
        if geometry.first_dot_last is not None:
            total = total + geometry.first_dot_last
        return total + host_scalar(sum_up(rest, lambda s: sum_of_squares(s.grads), self._zero)) if rest else total

    def probes(self, geometry: Geometry) -> Probes:
        """Start a search of alpha; needs `measure` first and costs one more model copy while it lives."""
        return Probes(self._perturbed, geometry)

    def combine(self, weights: Weights) -> None:
        """Form the update gradient in `.grad`; spends the displacement and g_0."""
        last, first, displacement = weights.last, weights.first, weights.displacement
        for piece in self._perturbed:
            scale_(piece.grads, on_device_of(piece, last))
            add_scaled_(piece.grads, piece.values, on_device_of(piece, displacement))
        rest = [s for s in self.slices if not s.is_perturbed]
        for piece in rest if self._mixes_first else ():
            scale_(piece.grads, on_device_of(piece, last))
        for piece in self.slices if self._mixes_first else ():
            add_scaled_(piece.grads, piece.first_grads, on_device_of(piece, first))
            piece.first_grads = []

    def restore(self) -> None:
        """Put theta_0 back, bit for bit."""
        for piece in self._perturbed:
            if piece.origin:
                torch._foreach_copy_(piece.values, piece.origin)

    def forget(self) -> None:
        """Free the copies of theta_0 and g_0."""
        for piece in self.slices:
            piece.origin, piece.first_grads = [], []


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
            radius = probe_radius(piece.group)
            torch._foreach_copy_(piece.values, piece.origin)
            add_scaled_(piece.values, displacement, radius * c0 / distance if distance else 0.0)
            add_scaled_(piece.values, piece.grads, radius * c1 / grad_norm if grad_norm else 0.0)

    def finish(self) -> None:
        """Put the displacement back into the parameters and free its copy."""
        for piece, displacement in zip(self._perturbed, self._displacements, strict=True):
            torch._foreach_copy_(piece.values, displacement)
        self._displacements = []


def probe_radius(group: dict[str, Any]) -> float:
    """Return the group's rho_max, by default twice its rho, the authors' ratio."""
    rho_max = group["rho_max"]
    return float(2 * group["rho"] if rho_max is None else rho_max)


def sum_up(slices: Sequence[ParamSlice], term: Callable[[ParamSlice], Tensor], zero: Tensor) -> Tensor:
    """Add `term` over slices, and over the ranks that hold other shards of them.

    Ranks sum one tensor per distinct sharding, however many terms it packs.
    """
    by_sharding: dict[tuple[dist.ProcessGroup, ...], Tensor] = {}
    for piece in slices:
        value = term(piece).to(zero.device)
        known = by_sharding.get(piece.shard_groups)
        by_sharding[piece.shard_groups] = value if known is None else known + value
    for groups, value in by_sharding.items():
        for group in groups:
            dist.all_reduce(value, group=group)
    totals = list(by_sharding.values())
    return sum(totals[1:], start=totals[0]) if totals else zero


def _displacement_sums(piece: ParamSlice) -> Tensor:
    return torch.stack([sum_of_squares(piece.values), sum_of_squares(piece.grads), dot(piece.values, piece.grads)])


def _gradient_sums(piece: ParamSlice) -> Tensor:
    return torch.stack([dot(piece.first_grads, piece.grads), sum_of_squares(piece.grads)])


def _scale_by_weights_(piece: ParamSlice) -> None:
    """Multiply the gradients by T = |w| + eta if the slice is adaptive (ASAM); done twice, T^2 g.

    One tensor at a time, because all of T would be one more model copy.
    """
    if piece.group["adaptive"]:
        for grad, value in zip(piece.grads, piece.values, strict=True):
            grad.mul_(value.abs().add_(piece.group["adaptive_eta"]))


def on_device_of(piece: ParamSlice, scale: Scalar) -> Scalar:
    """Return `scale` where foreach kernels on the slice can use it."""
    return scale.to(piece.values[0].device) if isinstance(scale, Tensor) else scale
