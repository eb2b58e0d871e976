"""Losses with a known answer, to see what an ascent and the optimizers do with them; for looking, not for training.

Symbols of the paper (arXiv 2603.10048, figures 1b and 3a):

| paper    | here                                                       |
|----------|------------------------------------------------------------|
| theta_0  | a point of the surface                                     |
| g_k      | gradient after k ascent steps that share the length rho    |
| v(alpha) | slerp of the ascent's direction and g_k                    |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from xsam_core.errors import ArgumentError
from xsam_core.functional import NORM_EPS, angle_between, slerp_weights
from xsam_core.optimizer import SharpnessAware

Surface = Callable[[Tensor], Tensor]
"""Takes points, shape `(*, 2)`, and returns their losses, shape `(*)`; differentiable."""
Point = tuple[float, float]

_NUM_ANGLES = 3600
"""Directions that are looked at for the maximum on the circle: one in each tenth of a degree."""
_ALPHAS = tuple(round(0.1 * i, 1) for i in range(21))
_ROUNDING = 1e-6
_SHARP, _FLAT = ((-1.0, 0.0), 0.25), ((1.0, 0.0), 1.0)
"""Centre and width of the basins of `two_basins`."""


@dataclass(frozen=True)
class AscentQuality:
    """How good directions at theta_0 are, as a share of the largest rise of the loss at rho_max.

    1 is the direction of the maximum on the circle, 0 is no rise at all, below 0 it falls.

    Attributes:
        ascent_steps: k.
        gradient: Of g_k, SAM's direction.
        displacement: Of theta_k - theta_0.
        chosen: Of v(alpha*), XSAM's direction.
        alpha: alpha*, of the paper's grid.
    """

    ascent_steps: int
    gradient: float
    displacement: float
    chosen: float
    alpha: float


def two_basins(points: Tensor) -> Tensor:
    """Return the loss of a sharp and a flat basin, of equal depth, side by side: -log of a sum of two Gaussians.

    Args:
        points: Shape `(*, 2)`; the sharp basin's centre is (-1, 0), the flat one's (1, 0).

    Returns:
        Shape `(*)`, near 0 at both centres.

    Example:
        >>> [round(float(two_basins(torch.tensor(at))), 2) for at in ([-1.0, 0.0], [1.0, 0.0], [0.0, 0.0])]
        [-0.13, -0.0, 0.5]
    """
    parts = []
    for centre, width in (_SHARP, _FLAT):
        offsets = points - points.new_tensor(centre)
        parts.append(-offsets.square().sum(-1) / (2 * width**2))
    return -torch.logsumexp(torch.stack(parts), 0)


def is_in_flat_basin(point: Point) -> bool:
    """Return whether the flat basin of `two_basins` has the larger part of the loss's Gaussians at a point."""
    (sharp, narrow), (flat, wide) = _SHARP, _FLAT
    return math.dist(point, flat) / wide < math.dist(point, sharp) / narrow


def quadratic_rho_0(hessian: Tensor, gradient: Tensor, *, rho: float) -> float | None:
    """Return the rho_0 of Proposition 1 for a quadratic loss, in closed form.

    Args:
        hessian: Symmetric, shape `(d, d)`.
        gradient: g_0, at theta_0, shape `(d,)`.
        rho: Length of the single ascent step, > 0.

    Returns:
        The radius from which on the loss along g_1 is above that along g_0: 0 where it is so from the start, None
        where it never is (g_1's direction has no larger curvature).

    Example:
        >>> round(quadratic_rho_0(torch.diag(torch.tensor([1.0, 20.0])), torch.tensor([1.0, 2.0]), rho=0.1), 3)
        0.034

    References:
        Chen and Zhou, ICLR 2026, arXiv 2603.10048, Proposition 1.
    """
    first = gradient / gradient.norm()
    last = gradient + rho * hessian @ first
    last = last / last.norm()
    curvature = float(first @ hessian @ first)
    gained = float(last @ hessian @ last) - curvature
    lost = float(gradient.norm() - gradient @ last)
    if gained <= _ROUNDING * abs(curvature):
        return None
    return max(0.0, 2 * lost / gained)


def trajectory(
    surface: Surface, start: Point, make_optimizer: Callable[[Iterable[nn.Parameter]], Optimizer], *, num_steps: int
) -> tuple[Point, ...]:
    """Return where an optimizer goes from a point: the start, and the point after each step.

    Args:
        surface: The loss.
        start: theta_0 of the first step.
        make_optimizer: Given the one parameter, returns the optimizer: any of this library's, or torch's SGD.
        num_steps: Steps to take, >= 0.

    Raises:
        ArgumentError: num_steps is negative.

    Example:
        >>> from xsam_core import SAM
        >>> bowl = lambda points: points.square().sum(-1) / 2
        >>> path = trajectory(bowl, (1.0, 0.0), lambda p: SAM(p, torch.optim.SGD, rho=0.5, lr=0.1), num_steps=1)
        >>> [round(x, 2) for x, _ in path]  # 1 - 0.1 * 1.5
        [1.0, 0.85]
    """
    if num_steps < 0:
        raise ArgumentError(f"num_steps must be at least 0, got {num_steps}")
    theta = nn.Parameter(torch.tensor(start, dtype=torch.float64))
    optimizer = make_optimizer([theta])
    path = [_point(theta)]
    for _ in range(num_steps):
        _step(optimizer, lambda: surface(theta))
        path.append(_point(theta))
    return tuple(path)


def ascent_quality(
    surface: Surface, start: Point, *, rho: float, rho_max: float, ascent_steps: Sequence[int]
) -> tuple[AscentQuality, ...]:
    """Return for each k how near the directions that an ascent finds come to the maximum on the circle of rho_max.

    Args:
        surface: The loss.
        start: theta_0.
        rho: Length of the whole ascent, > 0.
        rho_max: Radius of the circle, > 0.
        ascent_steps: The k to look at, each >= 1.

    Raises:
        ArgumentError: An option is out of range, or the loss rises nowhere on the circle.

    Example:
        On a plane every ascent finds the steepest direction:

        >>> slope = lambda points: points @ points.new_tensor([3.0, 4.0])
        >>> [round(q.gradient, 6) for q in ascent_quality(slope, (0.0, 0.0), rho=0.1, rho_max=0.2, ascent_steps=[1, 5])]
        [1.0, 1.0]

    References:
        Chen and Zhou, ICLR 2026, arXiv 2603.10048, figure 1b.
    """
    for name, value in (("rho", rho), ("rho_max", rho_max)):
        if not (math.isfinite(value) and value > 0):
            raise ArgumentError(f"{name} must be a finite number greater than 0, got {value!r}")
    if not ascent_steps or min(ascent_steps) < 1:
        raise ArgumentError(f"ascent_steps must be numbers of at least 1, got {list(ascent_steps)}")
    origin = torch.tensor(start, dtype=torch.float64)
    turns = torch.arange(_NUM_ANGLES, dtype=torch.float64) * (2 * math.pi / _NUM_ANGLES)
    loss = float(surface(origin))
    rise = float(surface(origin + rho_max * torch.stack([turns.cos(), turns.sin()], -1)).max()) - loss
    if rise <= 0:
        raise ArgumentError(f"start must be a point around which the loss rises somewhere, got {start}")

    def quality(directions: Tensor) -> Tensor:
        return (surface(origin + rho_max * directions) - loss) / rise

    found = []
    for num_steps in ascent_steps:
        displacement, gradient = _ascend(surface, origin, rho, num_steps)
        angle = angle_between(displacement @ gradient, displacement.norm(), gradient.norm())
        weights = [slerp_weights(angle, alpha) for alpha in _ALPHAS]
        arc = torch.stack([c0 * displacement + c1 * gradient for c0, c1 in weights])
        along = quality(arc)
        best = int(along.argmax())
        ends = quality(torch.stack([gradient, displacement]))
        found.append(AscentQuality(num_steps, float(ends[0]), float(ends[1]), float(along[best]), _ALPHAS[best]))
    return tuple(found)


def _ascend(surface: Surface, origin: Tensor, rho: float, num_steps: int) -> tuple[Tensor, Tensor]:
    """Return v0 and v1 of an ascent, both of length 1."""
    at = origin.clone()
    for _ in range(num_steps):
        gradient = _gradient(surface, at)
        at = at + rho / num_steps * gradient / (gradient.norm() + NORM_EPS)
    last = _gradient(surface, at)
    moved = at - origin
    return moved / (moved.norm() + NORM_EPS), last / (last.norm() + NORM_EPS)


def _gradient(surface: Surface, at: Tensor) -> Tensor:
    at = at.detach().requires_grad_()
    return torch.autograd.grad(surface(at), at)[0]


def _step(optimizer: Optimizer, loss: Callable[[], Tensor]) -> None:
    if isinstance(optimizer, SharpnessAware):
        optimizer.step(loss)  # it calls backward itself
        return
    optimizer.zero_grad()
    torch.autograd.backward(loss())
    optimizer.step()


def _point(theta: Tensor) -> Point:
    x, y = theta.detach().tolist()
    return x, y
