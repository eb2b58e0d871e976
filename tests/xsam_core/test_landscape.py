"""The loss around theta_0, held against quadratics, where all of it has a closed form."""

import math

import pytest
import torch
from torch import Tensor, nn

from tests.xsam_core.live_memory import LiveMemory
from xsam_core import ArgumentError, ClosureError, NonFiniteError, StepError, loss_plane, radius_profile
from xsam_core.landscape import LossPlane

CURVATURE = torch.tensor([[2.0, 0.5, 0.0], [0.5, 9.0, 1.0], [0.0, 1.0, 4.0]], dtype=torch.float64)
SLOPE = torch.tensor([1.0, -0.3, 0.2], dtype=torch.float64)
START = torch.tensor([0.7, 0.05, -0.4], dtype=torch.float64)
RHO = 0.1


class Bowl(nn.Module):
    """theta . H theta / 2 + b . theta."""

    def __init__(self, start: Tensor = START) -> None:
        super().__init__()
        self.theta = nn.Parameter(start.clone())

    def loss(self) -> Tensor:
        return value_at(self.theta)


def value_at(theta: Tensor) -> Tensor:
    return theta @ CURVATURE @ theta / 2 + SLOPE @ theta


def gradient_at(theta: Tensor) -> Tensor:
    return CURVATURE @ theta + SLOPE


def axes(num_steps: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """x axis, y axis and the unit g_k, by hand."""
    theta = START
    for _ in range(num_steps):
        theta = theta + RHO / num_steps * gradient_at(theta) / gradient_at(theta).norm()
    up = gradient_at(START) / gradient_at(START).norm()
    last = gradient_at(theta) / gradient_at(theta).norm()
    across = last - (last @ up) * up
    return across / across.norm(), up, last


@pytest.fixture(scope="module")
def plane() -> LossPlane:
    model = Bowl()
    return loss_plane(model, model.loss, rho=RHO, num_points=9)


@pytest.mark.parametrize("num_steps", [1, 3])
def test_plane__has_the_quadratic_s_values(num_steps: int) -> None:
    model = Bowl()
    plane = loss_plane(model, model.loss, rho=RHO, ascent_steps=num_steps, num_points=5)
    across, up, last = axes(num_steps)
    for row, y in enumerate(plane.ys):
        for column, x in enumerate(plane.xs):
            assert plane.losses[row][column] == pytest.approx(float(value_at(START + x * across + y * up)), rel=1e-12)
    assert plane.last == pytest.approx((float(last @ across), float(last @ up)))
    assert plane.losses[2][2] == plane.origin_loss == float(value_at(START))


def test_plane__first_last_and_chosen_are_losses_at_rho_max(plane: LossPlane) -> None:
    across, up, last = axes()
    assert plane.rho_max == 2 * RHO
    assert plane.first_loss == pytest.approx(float(value_at(START + 2 * RHO * up)))
    assert plane.last_loss == pytest.approx(float(value_at(START + 2 * RHO * last)))
    x, y = plane.chosen
    assert math.hypot(x, y) == pytest.approx(1.0)
    assert plane.chosen_loss == pytest.approx(float(value_at(START + 2 * RHO * (x * across + y * up))))
    assert plane.chosen_loss >= max(plane.first_loss, plane.last_loss)


def test_highest__is_the_maximum_of_the_circle_in_closed_form(plane: LossPlane) -> None:
    across, up, _ = axes()
    turns = torch.linspace(0, 2 * math.pi, 7201, dtype=torch.float64)[:-1]
    points = START + 2 * RHO * (turns.cos()[:, None] * across + turns.sin()[:, None] * up)
    losses = torch.stack([value_at(point) for point in points])
    best = float(turns[losses.argmax()])
    found = math.atan2(plane.highest[1], plane.highest[0])
    assert found == pytest.approx(best, abs=0.01)  # a ninth of the circle's step
    assert max(plane.circle) <= float(losses.max()) + 1e-12


def test_g_k__points_closer_to_the_maximum_than_g_0(plane: LossPlane) -> None:
    """The paper's figure 1a, on a quadratic."""
    highest = math.atan2(plane.highest[1], plane.highest[0])
    assert plane.angle_to_highest((0.0, 1.0)) == pytest.approx(abs(math.pi / 2 - highest))
    assert plane.angle_to_highest(plane.last) < plane.angle_to_highest((0.0, 1.0))
    assert plane.angle_to_highest(plane.chosen) < plane.angle_to_highest(plane.last)
    assert plane.angle_to_highest(plane.highest) == pytest.approx(0.0)
    x, y = plane.highest
    assert plane.angle_to_highest((-x, -y)) == pytest.approx(math.pi)


def test_crossing__is_the_rho_0_of_proposition_1() -> None:
    model = Bowl()
    _, up, last = axes()
    slope = gradient_at(START)
    gain = last @ CURVATURE @ last - up @ CURVATURE @ up
    rho_0 = float(2 * (slope.norm() - slope @ last) / gain)
    step = rho_0 / 50
    profile = radius_profile(model, model.loss, rho=RHO, radii=[(i + 0.5) * step for i in range(200)])
    assert profile.crossing == pytest.approx(rho_0, abs=step)
    assert all(
        (last > first) == (r > rho_0) for r, first, last in zip(profile.radii, profile.first, profile.last, strict=True)
    )


def test_crossing__is_none_where_g_0_stays_above() -> None:
    model = Bowl()
    assert radius_profile(model, model.loss, rho=RHO, radii=[1e-6, 2e-6]).crossing is None


@pytest.fixture
def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))


def test_proposition_1__holds_beyond_rho_0_on_a_network(network: nn.Sequential) -> None:
    inputs = torch.randn(64, 4)
    targets = inputs.prod(1, keepdim=True)
    radii = [0.01 * 1.3**i for i in range(14)]
    profile = radius_profile(network, lambda: (network(inputs) - targets).pow(2).mean(), rho=0.05, radii=radii)
    assert profile.crossing is not None
    assert profile.crossing <= 0.2


def test_looking__leaves_no_trace(network: nn.Sequential) -> None:
    inputs = torch.randn(16, 4)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    plane = loss_plane(network, lambda: network(inputs).pow(2).mean(), rho=0.05, num_points=3)
    assert plane.losses[1][1] == plane.origin_loss
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize("num_steps", [1, 3])
def test_looking__needs_the_axes_and_one_copy_of_theta_0(num_steps: int) -> None:
    model = nn.Sequential(*(nn.Linear(64, 64, bias=False) for _ in range(16)))
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    inputs = torch.linspace(-1, 1, 64)[None]

    def loss() -> Tensor:
        return model(inputs).square().mean()

    memory = LiveMemory()
    with memory:
        loss_plane(model, loss, rho=0.1, ascent_steps=num_steps, num_points=3)
    assert memory.peak_bytes < 3.4 * size, memory.peak_bytes / size  # theta_0, the axes, and what passes need


def test_closure_that_fails_half_way__leaves_no_trace(network: nn.Sequential) -> None:
    calls = 0

    def closure() -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 7:
            raise KeyError("gone")
        return network(torch.ones(4, 4)).pow(2).mean()

    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(KeyError, match="gone"):
        loss_plane(network, closure, rho=0.05, num_points=3)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_parallel_gradients__make_the_plane_a_line() -> None:
    model = nn.Linear(1, 1, bias=False)
    plane = loss_plane(model, lambda: model.weight.square().sum(), rho=0.1, num_points=3)
    assert plane.last == pytest.approx((0.0, 1.0))
    assert len(set(plane.losses[0])) == 1


def test_progress__is_told_after_each_row() -> None:
    model, told = Bowl(), []
    plane = loss_plane(model, model.loss, rho=RHO, num_points=3, on_row=told.append)
    assert [len(rows) for rows in told] == [1, 2, 3]
    assert told[-1] == plane.losses


def test_plane__goes_on_from_rows_that_are_there(plane: LossPlane) -> None:
    model, told, calls = Bowl(), [], 0

    def counted() -> Tensor:
        nonlocal calls
        calls += 1
        return model.loss()

    assert loss_plane(model, counted, rho=RHO, num_points=9, rows=plane.losses[:7], on_row=told.append) == plane
    assert [len(rows) for rows in told] == [8, 9]
    of_the_rest, calls = calls, 0
    assert loss_plane(model, counted, rho=RHO, num_points=9, rows=plane.losses) == plane
    assert of_the_rest - calls == 2 * 9


@pytest.mark.parametrize("rows", [[[0.0] * 3] * 4, [[0.0] * 2]])
def test_rows_of_another_grid__are_refused(rows: list[list[float]]) -> None:
    model = Bowl()
    with pytest.raises(ArgumentError, match="rows must be at most 3 of 3 losses each"):
        loss_plane(model, model.loss, rho=RHO, num_points=3, rows=rows)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rho": 0.0}, "rho must be a finite number greater than 0, got 0.0"),
        ({"rho": math.nan}, "rho must be"),
        ({"rho": 0.1, "rho_max": -1}, "rho_max must be"),
        ({"rho": 0.1, "extent": math.inf}, "extent must be"),
        ({"rho": 0.1, "num_points": 4}, "num_points must be odd and at least 3, got 4"),
        ({"rho": 0.1, "ascent_steps": 0}, "ascent_steps must be at least 1, got 0"),
    ],
)
def test_options__are_checked(options: dict[str, float], words: str) -> None:
    model = Bowl()
    with pytest.raises(ArgumentError, match=words):
        loss_plane(model, model.loss, **options)  # type: ignore[arg-type]
    assert torch.equal(model.theta, START)


def test_loss_that_is_no_loss__is_named() -> None:
    model = Bowl()
    with pytest.raises(ClosureError, match="scalar loss with its graph"):
        loss_plane(model, lambda: model.theta.detach().sum(), rho=0.1)
    with pytest.raises(NonFiniteError, match="theta_0"):
        loss_plane(model, lambda: model.theta.sum() * math.nan, rho=0.1)
    with pytest.raises(StepError, match="zero"):
        loss_plane(model, lambda: model.theta.sum() * 0.0, rho=0.1)
