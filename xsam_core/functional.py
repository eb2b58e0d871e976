"""Pure maths on lists of tensors: norms, products, sums and the slerp of the paper's eq. for v(alpha).

No optimizer, no model and no rank is known here. Lists may mix dtypes; a list lives on one device.

Symbols of the papers:

| paper          | here                                            |
|----------------|-------------------------------------------------|
| theta_k-theta_0| displacement                                    |
| v0, v1         | unit displacement, unit gradient at theta_k     |
| psi            | angle_rad                                       |
| v(alpha)       | slerp_weights(angle_rad, alpha) applied to both |
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Scalar = float | Tensor

# Added to a norm before dividing by it, as in the authors' code; the angles they recorded show it.
NORM_EPS = 1e-12

# acos is kept this far from pi, where the plane of v0 and v1 is undefined: sin(psi) stays large enough
# that v(alpha) of exactly opposite vectors is cos(alpha * pi) * v0 up to rounding.
_OPPOSITE_MARGIN = 1e-7


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the real dtype in which sums over tensors of `dtype` are kept: float32 for half types."""
    return torch.float64 if dtype in {torch.float64, torch.complex128} else torch.float32


def sum_of_squares(tensors: Sequence[Tensor]) -> Scalar:
    """Return the squared Euclidean norm of all tensors together.

    Args:
        tensors: At least one tensor, all on one device.

    Returns:
        A float on the CPU, else a 0-dim tensor, at least float32, without host synchronisation.

    Example:
        >>> sum_of_squares([torch.tensor([3.0]), torch.tensor([[0.0, 4.0]])])
        25.0
    """
    flat = _flat_on_cpu(tensors)
    if flat is not None:
        return sum([torch.dot(x, x).item() for x in flat])  # BLAS is half again as fast as the reduction
    dtype = accumulation_dtype(tensors[0].dtype)
    return _sum([norm.square_() for norm in torch._foreach_norm(list(tensors), 2, dtype=dtype)])


def dot(xs: Sequence[Tensor], ys: Sequence[Tensor]) -> Scalar:
    """Return the inner product of two lists of tensors of the same shapes.

    Returns:
        A float on the CPU, else a 0-dim tensor, at least float32, without host synchronisation.

    Example:
        >>> dot([torch.tensor([1.0, 2.0]), torch.tensor(3.0)], [torch.tensor([4.0, 5.0]), torch.tensor(6.0)])
        32.0
    """
    dtype = accumulation_dtype(xs[0].dtype)
    if xs[0].dtype == dtype:
        return _sum([torch.dot(x.reshape(-1), y.reshape(-1)) for x, y in zip(xs, ys, strict=True)])
    # Half types are widened one tensor at a time; all at once would be another copy of the model.
    return _sum([torch.dot(x.reshape(-1).to(dtype), y.reshape(-1).to(dtype)) for x, y in zip(xs, ys, strict=True)])


def squares_and_product(xs: Sequence[Tensor], ys: Sequence[Tensor]) -> list[Scalar]:
    """Return x . x, y . y and x . y of two lists of tensors of the same shapes, each tensor looked at once.

    Returns:
        Floats on the CPU, else 0-dim tensors, at least float32, without host synchronisation.

    Example:
        >>> squares_and_product([torch.tensor([1.0, 2.0])], [torch.tensor([3.0, 0.0])])
        [5.0, 9.0, 3.0]
    """
    flat_xs, flat_ys = _flat_on_cpu(xs), _flat_on_cpu(ys)
    if flat_xs is None or flat_ys is None or xs[0].dtype != ys[0].dtype:
        return [sum_of_squares(xs), sum_of_squares(ys), dot(xs, ys)]
    # A tensor's three products one after the other: it is in the cache then.
    products = [(torch.dot(x, x), torch.dot(y, y), torch.dot(x, y)) for x, y in zip(flat_xs, flat_ys, strict=True)]
    return [sum([part.item() for part in parts]) for parts in zip(*products, strict=True)]


def _flat_on_cpu(tensors: Sequence[Tensor]) -> list[Tensor] | None:
    """Return one-dimensional views, None where BLAS can't work on them as they are."""
    if not tensors[0].is_cpu:
        return None
    dtype = accumulation_dtype(tensors[0].dtype)
    flat = [x.view(-1) for x in tensors if x.dtype is dtype and x.is_contiguous()]
    return flat if len(flat) == len(tensors) else None


def _sum(parts: list[Tensor]) -> Scalar:
    """Add 0-dim tensors, in floats where reading them costs nothing: there, a tensor operation costs much more."""
    if parts[0].device.type == "cpu":
        return sum(part.item() for part in parts)
    return torch.stack(parts).sum()


def scale_(tensors: list[Tensor], scale: Scalar) -> None:
    """Multiply every tensor by `scale` in place."""
    if not (isinstance(scale, float) and scale == 1.0):
        torch._foreach_mul_(tensors, scale)


def add_scaled_(targets: list[Tensor], sources: list[Tensor], scale: Scalar) -> None:
    """Add `scale * sources` to `targets` in place.

    With a tensor `scale` the product has to be formed first and is formed in `sources`, which are then
    spent: a second model-sized buffer is exactly what the optimizer avoids.
    """
    if isinstance(scale, Tensor):
        torch._foreach_mul_(sources, scale)
        torch._foreach_add_(targets, sources)
    elif scale != 0.0:
        torch._foreach_add_(targets, sources, alpha=scale)


def as_tensor(value: Scalar, like: Tensor) -> Tensor:
    """Return `value` as a 0-dim tensor on the device of `like`, in the dtype in which sums are kept."""
    if isinstance(value, Tensor):
        return value.to(like.device)
    return torch.scalar_tensor(value, dtype=accumulation_dtype(like.dtype), device=like.device)


def root(value: Scalar) -> Scalar:
    """Return the square root; NaN and infinity stay what they are."""
    return value.sqrt() if isinstance(value, Tensor) else math.sqrt(value)


def at_most(value: Scalar, limit: float) -> Scalar:
    """Return the smaller one; NaN stays what it is."""
    if isinstance(value, Tensor):
        return value.clamp(max=limit)
    return limit if value > limit else value


def positive_or(condition: Scalar, value: Scalar, otherwise: float) -> Scalar:
    """Return `value` where `condition` > 0 or NaN, else `otherwise`; `value` must be computable in either case."""
    if isinstance(condition, Tensor):
        return torch.where(condition <= 0, otherwise, value)
    return otherwise if condition <= 0 else value


def angle_between(product: Scalar, norm_x: Scalar, norm_y: Scalar) -> Scalar:
    """Return the angle in rad of two vectors from their inner product and norms.

    Rounding can push the cosine past 1, where arccos is NaN, so it is clamped. If either vector is zero
    there is no angle, and 0 is returned.

    Returns:
        A number of the kind of the arguments, in [0, pi).

    Example:
        >>> angle_between(torch.tensor(1.0 + 1e-6), torch.tensor(1.0), torch.tensor(1.0))
        tensor(0.)
        >>> angle_between(1.0 + 1e-6, 1.0, 1.0)
        0.0
    """
    cosine = positive_or(norm_x * norm_y, product / ((norm_x + NORM_EPS) * (norm_y + NORM_EPS)), 1.0)
    if isinstance(cosine, Tensor):
        return torch.acos(cosine.clamp(-1.0 + _OPPOSITE_MARGIN, 1.0))
    # Comparing in this order hands a NaN on, as clamp does.
    cosine = -1.0 + _OPPOSITE_MARGIN if cosine < -1.0 + _OPPOSITE_MARGIN else cosine
    return math.acos(1.0 if cosine > 1.0 else cosine)


def slerp_weights(angle_rad: Scalar, alpha: float) -> tuple[Scalar, Scalar]:
    """Return (c0, c1) such that v(alpha) = c0 * v0 + c1 * v1 for unit vectors at `angle_rad`.

    c0 = sin((1 - alpha) psi) / sin(psi), c1 = sin(alpha psi) / sin(psi), written with sinc so that
    psi = 0 gives the limits 1 - alpha and alpha without a special case.

    References:
        Chen and Zhou, arXiv 2603.10048: v(alpha). The authors' code (Cccjl219/XSAM, utils/xsam.py, commit
        74fd250) takes arccos of the unclamped product, which is NaN for parallel vectors.

    Example:
        >>> slerp_weights(0.5, 1.0)
        (0.0, 1.0)
    """
    turns = angle_rad / math.pi
    unit = _sinc(turns)
    return (1 - alpha) * _sinc((1 - alpha) * turns) / unit, alpha * _sinc(alpha * turns) / unit


def _sinc(turns: Scalar) -> Scalar:
    """Return sin(pi x) / (pi x), 1 at 0."""
    if isinstance(turns, Tensor):
        return torch.sinc(turns)
    return 1.0 if turns == 0 else math.sin(math.pi * turns) / (math.pi * turns)
