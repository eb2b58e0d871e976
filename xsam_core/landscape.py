"""The loss around a point of training, on the plane that the ascent of a step spans; for looking, not for training.

No optimizer is needed: a model's parameters and a closure are. The parameters are where they were, bit for bit, when
a function here returns or raises.

Symbols of the paper (arXiv 2603.10048, figure 1 and Proposition 1):

| paper   | here                                                            |
|---------|-----------------------------------------------------------------|
| g_0     | gradient at theta_0; its direction is the y axis                |
| g_1, g_k| gradient at theta_k; the part orthogonal to g_0 is the x axis   |
| rho     | ascent radius; rho_m, rho_max: radius at which losses are compared |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xsam_core.batch_norm import frozen_running_stats
from xsam_core.errors import ArgumentError, ClosureError, NonFiniteError, StepError
from xsam_core.functional import NORM_EPS, add_scaled_, angle_between, dot, root, slerp_weights, sum_of_squares
from xsam_core.types import Closure

Point = tuple[float, float]

# Angles of the circle of rho_max that are looked at for its maximum: one every five degrees.
_NUM_ANGLES = 72

# The paper's grid of alpha.
_ALPHAS = tuple(round(0.1 * i, 1) for i in range(21))

# Sine of the angle between g_0 and g_k below which what is left of g_k beside g_0 is rounding: the plane is a line.
_PARALLEL = 1e-6


@dataclass(frozen=True)
class LossPlane:
    """Losses on a grid around theta_0, which is the origin.

    Attributes:
        xs: Grid in units of the parameter space along the part of g_k orthogonal to g_0, ascending.
        ys: Grid along g_0, ascending.
        losses: `losses[row][column]` at (xs[column], ys[row]).
        origin_loss: Loss at theta_0.
        rho: Length of the ascent that found g_k.
        rho_max: Radius of the circle.
        last: g_k as a point of length 1; g_0 is (0, 1).
        alpha: The alpha whose v(alpha) has the highest loss at rho_max, of those looked at.
        chosen: v(alpha) as a point of length 1: seen in this plane, so shorter where k > 1 leaves it.
        circle: Losses at rho_max, at equal angles from the x axis on.
        first_loss: Loss at rho_max along g_0.
        last_loss: Loss at rho_max along g_k.
        chosen_loss: Loss at rho_max along v(alpha).
    """

    xs: tuple[float, ...]
    ys: tuple[float, ...]
    losses: tuple[tuple[float, ...], ...]
    origin_loss: float
    rho: float
    rho_max: float
    last: Point
    alpha: float
    chosen: Point
    circle: tuple[float, ...]
    first_loss: float
    last_loss: float
    chosen_loss: float

    @property
    def highest(self) -> Point:
        """Where on the circle of rho_max the loss is highest: the vertex of the parabola through the highest losses."""
        losses, num = self.circle, len(self.circle)
        top = max(range(num), key=lambda i: losses[i] if math.isfinite(losses[i]) else -math.inf)
        before, at, after = losses[top - 1], losses[top], losses[(top + 1) % num]
        bend = before - 2 * at + after
        shift = (before - after) / (2 * bend) if math.isfinite(bend) and bend < 0 else 0.0
        angle = 2 * math.pi * (top + shift) / num
        return self.rho_max * math.cos(angle), self.rho_max * math.sin(angle)

    def angle_to_highest(self, point: Point) -> float:
        """Return the angle in rad, in [0, pi], between a point's direction and that of `highest`."""
        turn = math.atan2(point[1], point[0]) - math.atan2(self.highest[1], self.highest[0])
        return abs(math.remainder(turn, 2 * math.pi))


@dataclass(frozen=True)
class RadiusProfile:
    """Losses along g_0 and along g_k, at growing distances from theta_0 (Proposition 1).

    Attributes:
        radii: Distances, ascending.
        first: Losses at theta_0 + radius * g_0 / norm(g_0).
        last: Losses at theta_0 + radius * g_k / norm(g_k).
    """

    radii: tuple[float, ...]
    first: tuple[float, ...]
    last: tuple[float, ...]

    @property
    def crossing(self) -> float | None:
        """The paper's rho_0: the smallest radius from which on the loss along g_k stays above, if there is one."""
        found = None
        for radius, first, last in zip(reversed(self.radii), reversed(self.first), reversed(self.last), strict=True):
            if not last > first:
                break
            found = radius
        return found


def loss_plane(  # noqa: PLR0913 - one keyword per option
    model: nn.Module,
    closure: Closure,
    *,
    rho: float,
    rho_max: float | None = None,
    ascent_steps: int = 1,
    extent: float = 1.25,
    num_points: int = 41,
    alphas: Sequence[float] = _ALPHAS,
    rows: Sequence[Sequence[float]] = (),
    on_row: Callable[[tuple[tuple[float, ...], ...]], None] | None = None,
) -> LossPlane:
    """Return the loss on the plane of g_0 and g_k around the model's parameters.

    Costs `ascent_steps` + 1 forward and backward passes and `num_points` squared forward passes, with a hundred more
    for the circle and for alpha. Needs two more copies of the model where it is, and one in the host's memory.

    Args:
        model: Where it is trained, in the mode in which it is trained; running statistics stay as they are.
        closure: Runs the forward pass and returns the scalar loss; the data must stay the same from call to call.
        rho: Length of the ascent, > 0.
        rho_max: Radius of the circle, > 0; by default twice rho.
        ascent_steps: k.
        extent: Half the width of the grid, in units of rho_max.
        num_points: Grid points along each axis, odd, so that theta_0 is one.
        alphas: Where v(alpha) is looked at.
        rows: Losses of an earlier call's rows, from the lowest y on, that need not be computed again.
        on_row: Told all rows so far after each that was computed; what it raises ends the call.

    Raises:
        ArgumentError: An option is out of range, or `rows` are of another grid.
        ClosureError: The closure returned no scalar with a graph.
        NonFiniteError: The loss or its gradient at theta_0 is not finite. On the grid a loss may be.
        StepError: The gradient is zero.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> plane = loss_plane(model, lambda: model.weight.pow(4).sum(), rho=0.1, num_points=3)
        >>> len(plane.losses), plane.losses[1][1] == plane.origin_loss, plane.last_loss >= plane.origin_loss
        (3, True, True)

    References:
        Chen and Zhou, ICLR 2026, arXiv 2603.10048, figure 1a.
    """
    rho_max = 2 * rho if rho_max is None else rho_max
    _check(rho=rho, rho_max=rho_max, extent=extent)
    if num_points < 3 or num_points % 2 == 0:
        raise ArgumentError(f"num_points must be odd and at least 3, got {num_points}")
    if len(rows) > num_points or any(len(row) != num_points for row in rows):
        raise ArgumentError(f"rows must be at most {num_points} of {num_points} losses each")
    with _Surroundings(model, closure).at_rest() as around:
        ascent = around.ascend(rho, ascent_steps)
        edge = extent * rho_max
        grid = tuple(edge * (2 * i / (num_points - 1) - 1) for i in range(num_points))
        losses = tuple(tuple(row) for row in rows)
        for y in grid[len(losses) :]:
            losses += (around.row(ascent, grid, y),)
            if on_row is not None:
                on_row(losses)
        turns = [2 * math.pi * i / _NUM_ANGLES for i in range(_NUM_ANGLES)]
        circle = [around.loss_at(ascent, rho_max * math.cos(t), rho_max * math.sin(t)) for t in turns]
        arc = [ascent.arc(alpha) for alpha in alphas]
        along = [around.loss_at(ascent, rho_max * x, rho_max * y) for x, y in arc]
        best = max(range(len(along)), key=along.__getitem__)
        return LossPlane(
            xs=grid,
            ys=grid,
            losses=losses,
            origin_loss=ascent.loss,
            rho=rho,
            rho_max=rho_max,
            last=ascent.last,
            alpha=alphas[best],
            chosen=arc[best],
            circle=tuple(circle),
            first_loss=around.loss_at(ascent, 0.0, rho_max),
            last_loss=around.loss_at(ascent, rho_max * ascent.last[0], rho_max * ascent.last[1]),
            chosen_loss=along[best],
        )


def radius_profile(
    model: nn.Module, closure: Closure, *, rho: float, radii: Iterable[float], ascent_steps: int = 1
) -> RadiusProfile:
    """Return the losses along g_0 and along g_k at the given distances from the model's parameters.

    Args:
        model: Where it is trained.
        closure: Runs the forward pass and returns the scalar loss; the data must stay the same from call to call.
        rho: Length of the ascent, > 0.
        radii: Distances > 0, in any order.
        ascent_steps: k.

    Raises:
        ArgumentError: rho or a radius is not a positive number.
        ClosureError: The closure returned no scalar with a graph.
        NonFiniteError: The loss or its gradient at theta_0 is not finite.
        StepError: The gradient is zero.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> with torch.no_grad():
        ...     _ = model.weight.copy_(torch.tensor([[1.0, 0.1]]))
        >>> def closure():  # curvatures 1 and 20: the way up bends towards the second axis
        ...     return (model.weight**2 * torch.tensor([0.5, 10.0])).sum()
        >>> 0.0 < radius_profile(model, closure, rho=0.1, radii=[0.01 * i for i in range(1, 100)]).crossing < 1.0
        True

    References:
        Chen and Zhou, ICLR 2026, arXiv 2603.10048, Proposition 1.
    """
    ordered = tuple(sorted(radii))
    _check(rho=rho, **{f"radii[{i}]": radius for i, radius in enumerate(ordered)})
    with _Surroundings(model, closure).at_rest() as around:
        ascent = around.ascend(rho, ascent_steps)
        first = tuple(around.loss_at(ascent, 0.0, r) for r in ordered)
        last = tuple(around.loss_at(ascent, r * ascent.last[0], r * ascent.last[1]) for r in ordered)
    return RadiusProfile(ordered, first, last)


@dataclass(frozen=True)
class _Ascent:
    """What an ascent found: axes of the plane, and the vectors in it."""

    loss: float
    across: list[Tensor]
    up: list[Tensor]
    last: Point
    displacement: Point

    def arc(self, alpha: float) -> Point:
        """Return v(alpha) of the displacement and g_k, both as seen in the plane."""
        (x0, y0), (x1, y1) = self.displacement, self.last
        c0, c1 = slerp_weights(angle_between(x0 * x1 + y0 * y1, math.hypot(x0, y0), math.hypot(x1, y1)), alpha)
        return float(c0 * x0 + c1 * x1), float(c0 * y0 + c1 * y1)


class _Surroundings:
    """A model whose parameters are moved about theta_0, and put back."""

    def __init__(self, model: nn.Module, closure: Closure) -> None:
        self._model = model
        self._closure = closure
        self._params = [p for p in model.parameters() if p.requires_grad]
        if not self._params:
            raise ArgumentError("model has no parameter that requires a gradient")
        # In the host's memory, which has room beside the axes' two copies on a device; it is read once a row.
        self._origin = [_in_host_memory(p.detach()) for p in self._params]

    @contextmanager
    def at_rest(self) -> Iterator[_Surroundings]:
        """Leave parameters, buffers and gradients as they are now."""
        buffers = [(b, b.clone()) for b in self._model.buffers()]
        try:
            with frozen_running_stats(self._model):
                yield self
        finally:
            self._go_home()
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)

    def ascend(self, rho: float, num_steps: int) -> _Ascent:
        """Climb from theta_0 and lay the axes."""
        if num_steps < 1:
            raise ArgumentError(f"ascent_steps must be at least 1, got {num_steps}")
        loss, first = self._gradient(is_first=True)
        gradient = first
        for _ in range(num_steps):
            with torch.no_grad():
                length = float(root(sum_of_squares(gradient)))
                add_scaled_(self._params_data(), gradient, rho / num_steps / (length + NORM_EPS))
            gradient = []  # its memory is free for the next one
            _, gradient = self._gradient()
        up_norm, last_norm = _normalise_(first), _normalise_(gradient)
        if up_norm == 0 or last_norm == 0:
            raise StepError("the gradient is zero: it spans no plane to look at")
        last_up = float(dot(gradient, first))
        add_scaled_(gradient, first, -last_up)
        across = gradient  # what g_k has beside g_0
        last_across = _normalise_(across)
        if last_across < _PARALLEL:
            last_across = 0.0
            torch._foreach_zero_(across)
        moved_across, moved_up, moved = self._displacement_along(across, first)
        self._go_home()
        return _Ascent(loss, across, first, (last_across, last_up), (moved_across / moved, moved_up / moved))

    def _displacement_along(self, across: list[Tensor], up: list[Tensor]) -> tuple[float, float, float]:
        """Return how far the parameters are from theta_0 along both axes, and in all; one tensor at a time."""
        along_across = along_up = squares = 0.0
        for param, origin, x, y in zip(self._params, self._origin, across, up, strict=True):
            moved = [param.detach() - origin.to(param.device)]
            along_across += float(dot(moved, [x]))
            along_up += float(dot(moved, [y]))
            squares += float(sum_of_squares(moved))
        return along_across, along_up, math.sqrt(squares) + NORM_EPS

    def row(self, ascent: _Ascent, xs: Sequence[float], y: float) -> tuple[float, ...]:
        """Return the losses at (x, y): the parameters walk along the row, one addition a point."""
        losses = []
        with torch.no_grad():
            self._place(ascent, xs[0], y)
            for before, x in zip([xs[0], *xs], xs, strict=False):
                if x != before:
                    add_scaled_(self._params_data(), ascent.across, x - before)
                if x == 0 and y == 0:
                    self._go_home()
                losses.append(self._loss())
        return tuple(losses)

    def loss_at(self, ascent: _Ascent, x: float, y: float) -> float:
        """Return the loss at a point of the plane."""
        with torch.no_grad():
            self._place(ascent, x, y)
            return self._loss()

    def _place(self, ascent: _Ascent, x: float, y: float) -> None:
        self._go_home()
        add_scaled_(self._params_data(), ascent.across, x)
        add_scaled_(self._params_data(), ascent.up, y)

    def _go_home(self) -> None:
        with torch.no_grad():
            torch._foreach_copy_(self._params_data(), self._origin, non_blocking=True)

    def _params_data(self) -> list[Tensor]:
        return [p.detach() for p in self._params]

    def _loss(self) -> float:
        return float(self._closure().detach())

    def _gradient(self, *, is_first: bool = False) -> tuple[float, list[Tensor]]:
        """Return loss and gradient where the parameters are; `.grad` is not touched."""
        loss = self._closure()
        if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
            raise ClosureError("the closure must return the scalar loss with its graph")
        gradient = torch.autograd.grad(loss, self._params, allow_unused=True)
        filled = [torch.zeros_like(p) if g is None else g for p, g in zip(self._params, gradient, strict=True)]
        if is_first and not math.isfinite(float(loss.detach()) + float(sum_of_squares(filled))):
            raise NonFiniteError(f"the loss at theta_0 ({float(loss.detach())}) or its gradient is not finite", 0)
        return float(loss.detach()), filled


def _in_host_memory(tensor: Tensor) -> Tensor:
    """Return a copy, page-locked if it is to go to a GPU again and again."""
    return torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda).copy_(tensor)


def _normalise_(vector: list[Tensor]) -> float:
    """Give the vector length 1, in place, and return what it had; 0 stays 0."""
    length = float(root(sum_of_squares(vector)))
    if length > 0:
        torch._foreach_mul_(vector, 1 / length)
    return length


def _check(**numbers: float) -> None:
    for name, value in numbers.items():
        if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
            raise ArgumentError(f"{name} must be a finite number greater than 0, got {value!r}")
