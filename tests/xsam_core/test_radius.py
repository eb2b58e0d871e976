"""rho over time: the warm-up of all variants, and GSAM's rho that follows lr."""

import pytest
import torch
from torch import nn

from tests.xsam_core.problems import classification, same
from tests.xsam_core.test_checkpoint import SGD_BASE, by_state_dict, resume_is_exact
from xsam_core import ASAM, GSAM, SAM, WSAM, XSAM, ArgumentError, SGDPlus
from xsam_core.radius import Radius, warmed_up

ALL = [SAM, ASAM, WSAM, GSAM, SGDPlus, XSAM]


def moved(variant, num_steps: int, **options) -> list[float]:
    """Return how far each step's ascent went."""
    problem = classification()
    optimizer = variant(problem.params, torch.optim.SGD, lr=0.01, **options)
    lengths = []
    for step in range(num_steps):
        before, seen = problem.snapshot(), []

        def closure(step=step, seen=seen):
            seen.append(problem.snapshot())
            return problem.loss(step)

        optimizer.step(closure, search_alpha=False)
        lengths.append(sum((a - b).square().sum() for a, b in zip(seen[1], before, strict=True)).sqrt().item())
    return lengths


@pytest.mark.parametrize("variant", [SAM, WSAM, GSAM, SGDPlus, XSAM])
def test_warm_up__rho_grows_in_a_straight_line(variant):
    assert moved(variant, 6, rho=0.2, rho_warmup_steps=4) == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.2, 0.2])


@pytest.mark.parametrize("variant", ALL)
def test_warm_up__its_last_step_is_the_first_with_all_of_rho(variant):
    warm, plain = classification(), classification()
    first = variant(warm.params, torch.optim.SGD, lr=0.1, rho=0.2, rho_warmup_steps=1)
    second = variant(plain.params, torch.optim.SGD, lr=0.1, rho=0.2)
    first.step(warm.closure(0))
    second.step(plain.closure(0))
    assert same(warm.snapshot(), plain.snapshot())


def test_warm_up__probes_keep_their_ratio():
    given = {"rho_max": 0.6, "rho_warmup_steps": 4}
    assert warmed_up(given, 0.2, 1) == Radius(0.1, 0.3)
    assert warmed_up({**given, "rho_max": None}, 0.2, 1) == Radius(0.1, 0.2)
    assert warmed_up(given, 0.2, 100) == Radius(0.2, 0.6)
    assert warmed_up({**given, "rho_warmup_steps": 0}, 0.2, 0) == Radius(0.2, 0.6)


@pytest.mark.parametrize("stop", [1, 3, 5])
@pytest.mark.parametrize("variant", ALL)
def test_warm_up__resumes_bit_equal_in_the_middle(variant, stop):
    resume_is_exact(variant, {"rho_warmup_steps": 5, "rho": 0.3}, SGD_BASE, stop, by_state_dict)


@pytest.mark.parametrize("value", [-1, 1.5, True])
def test_warm_up__bad_lengths_are_refused(value):
    with pytest.raises(ArgumentError, match="rho_warmup_steps must be a whole number >= 0"):
        SAM(classification().params, torch.optim.SGD, lr=0.1, rho_warmup_steps=value)


def test_gsam__rho_follows_the_learning_rate():
    weight = nn.Parameter(torch.tensor([3.0], dtype=torch.float64))
    optimizer = GSAM([weight], torch.optim.SGD, rho=0.5, rho_min=0.1, lr_min=0.02, lr=0.1)
    for lr, rho in ((0.1, 0.5), (0.06, 0.3), (0.02, 0.1), (0.0, 0.1), (0.2, 0.5)):
        optimizer.param_groups[0]["lr"] = lr
        seen, start = [], weight.item()
        optimizer.step(lambda seen=seen: seen.append(weight.item()) or weight.square().sum() / 2)
        assert abs(seen[1] - start) == pytest.approx(rho)


def test_gsam__schedule_resumes_bit_equal_and_takes_the_peak_from_the_checkpoint():
    resume_is_exact(GSAM, {"rho": 0.3, "rho_min": 0.1}, SGD_BASE, 3, by_state_dict)
    problem = classification()
    saved = GSAM(problem.params, torch.optim.SGD, rho_min=0.01, lr=0.4).state_dict()
    other = GSAM(problem.params, torch.optim.SGD, rho_min=0.01, lr=0.1)
    other.load_state_dict(saved)
    assert other.param_groups[0]["gsam_lr_max"] == 0.4


def test_gsam__a_rho_below_rho_min_is_refused_whoever_set_it():
    problem = classification()
    optimizer = GSAM(problem.params, torch.optim.SGD, rho=0.2, rho_min=0.1, lr=0.1)
    optimizer.load_state_dict(GSAM(problem.params, torch.optim.SGD, rho=0.05, lr=0.1).state_dict())
    with pytest.raises(ArgumentError, match=r"rho_min must be <= rho = 0\.05, got 0\.1"):
        optimizer.step(problem.closure(0))


def test_gsam__a_peak_that_was_given_is_not_the_checkpoint_s():
    weight = nn.Parameter(torch.tensor([3.0], dtype=torch.float64))
    saved = GSAM([weight], torch.optim.SGD, rho=0.5, rho_min=0.1, lr_max=0.4, lr=0.1).state_dict()
    optimizer = GSAM([weight], torch.optim.SGD, rho=0.5, rho_min=0.1, lr_max=0.2, lr=0.1)
    optimizer.load_state_dict(saved)
    assert optimizer._rho(optimizer.param_groups[0]) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rho_min": -0.1}, "rho_min must be"),
        ({"rho_min": 0.3}, "rho_min must be <= rho"),
        ({"rho_min": 0.01, "lr_min": 0.2}, "lr_max must be > lr_min"),
        ({"lr_max": 0.2}, "rho_min must be given"),
    ],
)
def test_gsam__a_schedule_that_cannot_be_is_refused(options, message):
    with pytest.raises(ArgumentError, match=message):
        GSAM(classification().params, torch.optim.SGD, rho=0.2, lr=0.1, **options)


def decoupled_reference(params, base, loss, *, rho: float, gamma: float) -> None:
    first = torch.autograd.grad(loss(), params)
    norm = sum(g.square().sum() for g in first).sqrt()
    origin = [p.detach().clone() for p in params]
    with torch.no_grad():
        for p, g in zip(params, first, strict=True):
            p.add_(g * rho / norm)
    last = torch.autograd.grad(loss(), params)
    with torch.no_grad():
        for p, o, g in zip(params, origin, first, strict=True):
            p.copy_(o)
            p.grad = g.clone()
    base.step()
    with torch.no_grad():
        for p, f, g in zip(params, first, last, strict=True):
            p.sub_(base.param_groups[0]["lr"] * gamma / (1 - gamma) * (g - f))


@pytest.mark.parametrize("nonfinite", ["auto", "deferred"])
@pytest.mark.parametrize(("base", "options"), [(torch.optim.SGD, {"momentum": 0.9}), (torch.optim.AdamW, {})])
def test_wsam__decoupled_keeps_the_sharpness_out_of_the_base_optimizer(base, options, nonfinite):
    fast, slow = classification(), classification()
    optimizer = WSAM(fast.params, base, rho=0.2, gamma=0.8, decouple=True, lr=0.05, nonfinite=nonfinite, **options)
    plain = base(slow.params, lr=0.05, **options)
    for step in range(4):
        optimizer.step(fast.closure(step))
        decoupled_reference(slow.params, plain, slow.closure(step), rho=0.2, gamma=0.8)
    for a, b in zip(fast.params, slow.params, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_wsam__decoupled_step_that_met_nan_moves_nothing():
    problem = classification()
    optimizer = WSAM(problem.params, torch.optim.SGD, decouple=True, lr=0.1, nonfinite="deferred")
    before = problem.snapshot()
    optimizer.step(lambda: problem.loss(0) * float("nan"))
    assert same(before, problem.snapshot())


def test_wsam__decoupled_resumes_bit_equal_and_refuses_what_it_cannot_do():
    resume_is_exact(WSAM, {"decouple": True}, SGD_BASE, 3, by_state_dict)
    with pytest.raises(ArgumentError, match="scope must be global with decouple"):
        WSAM(classification().params, torch.optim.SGD, decouple=True, scope="local", lr=0.1)
    with pytest.raises(ArgumentError, match="decouple must be True or False"):
        WSAM(classification().params, torch.optim.SGD, decouple="yes", lr=0.1)
