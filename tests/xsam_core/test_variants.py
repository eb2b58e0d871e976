"""Each family member on a quadratic, where its update is known in closed form, and against the slow reference."""

import inspect
import math

import pytest
import torch

from tests.xsam_core.problems import classification, largest_difference, same
from tests.xsam_core.reference import Reference, flat
from xsam_core import ASAM, GSAM, SAM, WSAM, XSAM, SGDPlus
from xsam_core.directions import WSAMDirection

LR = 0.1
RHO = 0.3
# f(w) = sum(h * w^2) / 2: the gradient at w is h * w.
CURVATURES = torch.tensor([1.0, 4.0], dtype=torch.float64)
START = torch.tensor([3.0, 1.0], dtype=torch.float64)


def step_on_quadratic(variant, **options) -> torch.Tensor:
    """Return the update gradient of one step from START."""
    weights = torch.nn.Parameter(START.clone())
    optimizer = variant([weights], torch.optim.SGD, lr=LR, **options)
    optimizer.step(lambda: (CURVATURES * weights.square()).sum() / 2)
    return (START - weights.detach()) / LR


def unit(vector: torch.Tensor) -> torch.Tensor:
    return vector / vector.norm()


FIRST = CURVATURES * START
SUMMIT = START + RHO * unit(FIRST)
LAST = CURVATURES * SUMMIT


def test_sam__uses_the_gradient_at_the_ascent_point():
    torch.testing.assert_close(step_on_quadratic(SAM, rho=RHO), LAST)


def test_sam__two_steps_share_rho():
    middle = START + RHO / 2 * unit(FIRST)
    summit = middle + RHO / 2 * unit(CURVATURES * middle)
    torch.testing.assert_close(step_on_quadratic(SAM, rho=RHO, ascent_steps=2), CURVATURES * summit)


def test_sgdplus__keeps_the_direction_of_the_ascent_and_the_last_length():
    torch.testing.assert_close(step_on_quadratic(SGDPlus, rho=RHO), LAST.norm() * unit(FIRST))


def test_asam__scales_the_perturbation_by_the_weights():
    scaling = START.abs() + 0.01
    summit = START + RHO * scaling**2 * FIRST / (scaling * FIRST).norm()
    torch.testing.assert_close(step_on_quadratic(ASAM, rho=RHO), CURVATURES * summit)


def test_wsam__mixes_both_gradients():
    torch.testing.assert_close(step_on_quadratic(WSAM, rho=RHO, gamma=0.8), -3.0 * FIRST + 4.0 * LAST)


def test_wsam__gamma_half_is_sam_and_zero_is_the_base_optimizer():
    assert torch.equal(step_on_quadratic(WSAM, rho=RHO, gamma=0.5), step_on_quadratic(SAM, rho=RHO))
    torch.testing.assert_close(step_on_quadratic(WSAM, rho=RHO, gamma=0.0), FIRST)


def test_gsam__takes_off_a_share_of_the_orthogonal_part():
    orthogonal = FIRST - FIRST.dot(unit(LAST)) * unit(LAST)
    torch.testing.assert_close(step_on_quadratic(GSAM, rho=RHO, gap_weight=0.7), LAST - 0.7 * orthogonal)


def test_xsam__fixed_alpha_is_the_slerp_of_both_directions():
    psi = math.acos(unit(FIRST).dot(unit(LAST)))
    turned = (math.sin(-0.5 * psi) * unit(FIRST) + math.sin(1.5 * psi) * unit(LAST)) / math.sin(psi)
    torch.testing.assert_close(step_on_quadratic(XSAM, rho=RHO, alpha=1.5), LAST.norm() * turned)


def test_xsam__searched_alpha_points_to_the_highest_probe():
    weights = torch.nn.Parameter(START.clone())
    optimizer = XSAM([weights], torch.optim.SGD, rho=RHO, rho_max=1.5, lr=LR)
    optimizer.step(lambda: (CURVATURES * weights.square()).sum() / 2)
    psi = math.acos(unit(FIRST).dot(unit(LAST)))
    curve = optimizer.telemetry.curve
    for alpha, loss in zip(curve.alphas, curve.losses, strict=True):
        turned = (math.sin((1 - alpha) * psi) * unit(FIRST) + math.sin(alpha * psi) * unit(LAST)) / math.sin(psi)
        assert loss == pytest.approx((CURVATURES * (START + 1.5 * turned).square()).sum().item() / 2)
    assert optimizer.alpha == curve.alphas[curve.losses.index(max(curve.losses))]


def test_xsam__alpha_one_is_sam_and_alpha_zero_is_sgdplus_bit_for_bit():
    assert torch.equal(step_on_quadratic(XSAM, rho=RHO, alpha=1.0), step_on_quadratic(SAM, rho=RHO))
    assert torch.equal(step_on_quadratic(XSAM, rho=RHO, alpha=0.0), step_on_quadratic(SGDPlus, rho=RHO))


def test_asam__is_sam_with_adaptive_perturbation():
    assert torch.equal(step_on_quadratic(ASAM, rho=RHO), step_on_quadratic(SAM, rho=RHO, adaptive=True))


VARIANTS = [
    ("sam", SAM, {}, {}),
    ("sgdplus", SGDPlus, {}, {}),
    ("wsam", WSAM, {"gamma": 0.7}, {"gamma": 0.7}),
    ("gsam", GSAM, {"gap_weight": 0.3}, {"gap_weight": 0.3}),
    ("xsam", XSAM, {"rho_max": 0.4, "alpha_every": 1}, {"rho_max": 0.4}),
]


@pytest.mark.parametrize("eta", [None, 0.01], ids=["plain", "adaptive"])
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize(("name", "variant", "options", "reference_options"), VARIANTS, ids=lambda v: str(v)[:12])
def test_step__equals_the_slow_reference_step_by_step(name, variant, options, reference_options, k, eta):
    fast, slow = classification(), classification()
    optimizer = variant(
        fast.params,
        torch.optim.SGD,
        rho=0.2,
        ascent_steps=k,
        adaptive=eta is not None,
        lr=0.3,
        momentum=0.9,
        weight_decay=1e-3,
        **options,
    )
    base = torch.optim.SGD(slow.params, lr=0.3, momentum=0.9, weight_decay=1e-3)
    for step in range(6):
        reference = Reference(slow.params, slow.closure(step))
        expected = reference.update(name, rho=0.2, k=k, eta=eta, **reference_options)
        for param, piece in zip(slow.params, expected.split([p.numel() for p in slow.params]), strict=True):
            param.grad = piece.view_as(param).clone()
        base.step()
        optimizer.step(fast.closure(step))
        torch.testing.assert_close(flat(p.grad for p in fast.params), expected, rtol=1e-9, atol=1e-11)
        assert largest_difference(fast.snapshot(), slow.snapshot()) < 1e-10


def test_wsam__class_is_a_handful_of_lines():
    source = inspect.getsource(WSAMDirection)
    code = source.split('"""')[0] + source.split('"""')[2]
    assert len([line for line in code.splitlines() if line.strip()]) <= 8


BASES = [
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "fused": True}),
    (torch.optim.AdamW, {"lr": 0.01, "foreach": True}),
    (torch.optim.AdamW, {"lr": 0.01, "fused": True}),
    (torch.optim.Adam, {"lr": 0.01, "amsgrad": True}),
    (torch.optim.RMSprop, {"lr": 0.01, "momentum": 0.5}),
    (torch.optim.Adagrad, {"lr": 0.01}),
    (torch.optim.NAdam, {"lr": 0.01}),
    (torch.optim.RAdam, {"lr": 0.01}),
    (torch.optim.Adamax, {"lr": 0.01}),
    (torch.optim.ASGD, {"lr": 0.01}),
    (torch.optim.Rprop, {"lr": 0.01}),
]


@pytest.mark.parametrize(("base", "options"), BASES, ids=lambda v: v.__name__ if isinstance(v, type) else "")
def test_step__rho_zero_is_the_base_optimizer_bit_for_bit(base, options):
    with_sam, plain = classification(), classification()
    optimizer = SAM(with_sam.params, base, rho=0.0, **options)
    base_alone = base(plain.params, **options)
    for step in range(4):
        optimizer.step(with_sam.closure(step))
        base_alone.zero_grad()
        plain.loss(step).backward()
        base_alone.step()
    assert same(with_sam.snapshot(), plain.snapshot())
