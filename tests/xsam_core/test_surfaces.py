"""What ascents and optimizers do on surfaces whose answers have a closed form."""

import math

import pytest
import torch
from torch import Tensor

from xsam_core import SAM, XSAM, ArgumentError, ascent_quality, quadratic_rho_0, radius_profile, trajectory, two_basins
from xsam_core.surfaces import is_in_flat_basin

CURVATURES = (1.0, 9.0)
START = (0.8, 0.1)
RHO, RHO_MAX = 0.2, 0.4


def bowl(points: Tensor) -> Tensor:
    return (points.square() * points.new_tensor(CURVATURES)).sum(-1) / 2


def rise_by_hand(direction: Tensor) -> float:
    """Of the bowl from START, along a direction of length 1."""
    a, b = CURVATURES
    (x, y), (u, v) = START, direction.tolist()
    return RHO_MAX * (a * x * u + b * y * v) + RHO_MAX**2 * (a * u * u + b * v * v) / 2


def largest_rise() -> float:
    """The maximum on the circle: where (a - m) u = -a x and (b - m) v = -b y for a multiplier m that makes it round."""
    (a, b), (x, y) = CURVATURES, START

    def radius(m: float) -> float:
        return math.hypot(a * x / (m - a), b * y / (m - b))

    low, high = b + 1e-9, b + 1e6
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if radius(middle) > RHO_MAX else (low, middle)
    return rise_by_hand(torch.tensor([a * x / (low - a), b * y / (low - b)]) / RHO_MAX)


@pytest.mark.parametrize("num_steps", [1, 3])
def test_quality__is_the_share_of_the_largest_rise_on_the_circle(num_steps: int) -> None:
    slopes = torch.tensor(CURVATURES, dtype=torch.float64)
    start = at = torch.tensor(START, dtype=torch.float64)
    for _ in range(num_steps):
        at = at + RHO / num_steps * slopes * at / (slopes * at).norm()
    last, moved = slopes * at / (slopes * at).norm(), (at - start) / (at - start).norm()
    largest = largest_rise()
    (found,) = ascent_quality(bowl, START, rho=RHO, rho_max=RHO_MAX, ascent_steps=[num_steps])
    assert found.gradient == pytest.approx(rise_by_hand(last) / largest, abs=1e-6)
    assert found.displacement == pytest.approx(rise_by_hand(moved) / largest, abs=1e-6)
    assert 1.0 + 1e-9 >= found.chosen >= max(found.gradient, found.displacement)


def test_quality__of_a_round_bowl_is_1_in_every_direction_that_an_ascent_finds() -> None:
    for found in ascent_quality(lambda p: p.square().sum(-1), START, rho=0.1, rho_max=0.2, ascent_steps=[1, 2, 5]):
        assert (found.gradient, found.displacement, found.chosen) == pytest.approx((1.0, 1.0, 1.0), abs=1e-6)


def test_trajectory__of_sgd_and_sam_on_a_bowl_is_geometric() -> None:
    plain = trajectory(bowl, (1.0, 0.0), lambda p: torch.optim.SGD(p, lr=0.1), num_steps=3)
    assert [x for x, _ in plain] == pytest.approx([1.0, 0.9, 0.81, 0.729])
    sharp = trajectory(bowl, (1.0, 0.0), lambda p: SAM(p, torch.optim.SGD, rho=0.5, lr=0.1), num_steps=2)
    assert [x for x, _ in sharp] == pytest.approx([1.0, 0.85, 0.715])


def test_trajectory__of_xsam_goes_along_the_direction_of_the_maximum() -> None:
    """With alpha searched in every step its step is as long as SAM's, against v(alpha*)."""
    options = {"rho": RHO, "rho_max": RHO_MAX, "lr": 0.01, "alpha_every": 1}
    (x0, y0), (x1, y1) = trajectory(bowl, START, lambda p: XSAM(p, torch.optim.SGD, **options), num_steps=1)
    (found,) = ascent_quality(bowl, START, rho=RHO, rho_max=RHO_MAX, ascent_steps=[1])
    step = torch.tensor([x0 - x1, y0 - y1], dtype=torch.float64)
    assert rise_by_hand(step / step.norm()) / largest_rise() == pytest.approx(found.chosen, abs=1e-6)
    (sam,) = trajectory(bowl, START, lambda p: SAM(p, torch.optim.SGD, rho=RHO, lr=0.01), num_steps=1)[1:]
    assert math.dist(START, (x1, y1)) == pytest.approx(math.dist(START, sam), rel=1e-6)


def test_two_basins__has_its_minima_at_the_two_centres_the_left_one_sharp() -> None:
    hessians = {}
    for centre in ((-1.0, 0.0), (1.0, 0.0)):
        at = torch.tensor(centre, dtype=torch.float64)
        ends = trajectory(two_basins, (centre[0] * 1.05, 0.05), lambda p: torch.optim.SGD(p, lr=0.05), num_steps=400)
        assert math.dist(ends[-1], centre) < 0.05
        hessians[centre] = torch.autograd.functional.hessian(two_basins, at)[1, 1].item()
        assert is_in_flat_basin(ends[-1]) == (centre[0] > 0)
    assert hessians[-1.0, 0.0] > 5 * hessians[1.0, 0.0] > 0


def test_rho_0__is_where_the_losses_of_a_quadratic_cross() -> None:
    generator = torch.Generator().manual_seed(1)
    root = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    hessian, start = root @ root.T, torch.randn(4, generator=generator, dtype=torch.float64)
    model = torch.nn.Linear(4, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(start[None])
    rho_0 = quadratic_rho_0(hessian, hessian @ start, rho=0.1)
    assert rho_0 is not None
    step = rho_0 / 20
    profile = radius_profile(
        model,
        lambda: (model.weight @ hessian @ model.weight.T).squeeze() / 2,
        rho=0.1,
        radii=[(i + 0.5) * step for i in range(60)],
    )
    assert profile.crossing == pytest.approx(rho_0, abs=step)


def test_rho_0__is_none_where_curvature_is_not_larger_along_g_1() -> None:
    assert quadratic_rho_0(torch.eye(2), torch.tensor([1.0, 2.0]), rho=0.1) is None
    saddle = torch.diag(torch.tensor([-10.0, 1.0]))  # a step this long leaps over it
    assert quadratic_rho_0(saddle, torch.tensor([1.0, 2.0]), rho=10.0) is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rho": 0.0}, "rho must be a finite number greater than 0, got 0.0"),
        ({"rho_max": math.nan}, "rho_max must be"),
        ({"ascent_steps": [1, 0]}, "ascent_steps must be numbers of at least 1"),
        ({"ascent_steps": []}, "ascent_steps must be"),
    ],
)
def test_options__are_checked(options: dict[str, object], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        ascent_quality(bowl, START, **{"rho": 0.1, "rho_max": 0.2, "ascent_steps": [1], **options})


def test_start_on_a_hilltop__is_refused_with_its_reason() -> None:
    with pytest.raises(ArgumentError, match="rises"):
        ascent_quality(lambda p: -p.square().sum(-1), (0.0, 0.0), rho=0.1, rho_max=0.2, ascent_steps=[1])
    with pytest.raises(ArgumentError, match="num_steps must be at least 0, got -1"):
        trajectory(bowl, START, lambda p: torch.optim.SGD(p, lr=0.1), num_steps=-1)
