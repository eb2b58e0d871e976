"""fp16 loss scaling: an overflow in any pass cancels the step, and the scaler hears of it."""

import pytest
import torch

from tests.xsam_core.problems import classification, largest_difference, same
from xsam_core import GSAM, SAM, XSAM

INIT_SCALE = 2.0**12


def scaler() -> torch.amp.GradScaler:
    return torch.amp.GradScaler("cpu", init_scale=INIT_SCALE, growth_interval=1000)


def build(problem, variant=XSAM, base=torch.optim.SGD, **options):
    return variant(problem.params, base, model=problem.model, lr=0.1, **options)


@pytest.mark.parametrize("base_options", [{}, {"foreach": True}, {"fused": True}], ids=["plain", "foreach", "fused"])
@pytest.mark.parametrize("variant", [SAM, GSAM, XSAM])
def test_step__with_a_scaler_walks_like_without(variant, base_options):
    scaled, plain = (classification(dtype=torch.float32) for _ in range(2))
    first, second = build(scaled, variant, **base_options), build(plain, variant, **base_options)
    grad_scaler = scaler()
    for step in range(4):
        first.step(scaled.closure(step), grad_scaler=grad_scaler)
        grad_scaler.update()
        second.step(plain.closure(step))
    assert largest_difference(scaled.snapshot(), plain.snapshot()) < 1e-5
    assert grad_scaler.get_scale() == INIT_SCALE


@pytest.mark.parametrize("overflowing_pass", [1, 2, 3])
@pytest.mark.parametrize(
    ("base", "options"),
    [
        (torch.optim.SGD, {"momentum": 0.9}),
        (torch.optim.AdamW, {"fused": True}),
        (torch.optim.AdamW, {"foreach": True}),
    ],
    ids=["sgd", "fused", "foreach"],
)
def test_step__overflow_in_any_pass_skips_the_step_and_shrinks_the_scale(base, options, overflowing_pass):
    problem = classification(dtype=torch.float32)
    optimizer = build(problem, XSAM, base, ascent_steps=2, alpha_every=10, **options)
    grad_scaler = scaler()
    optimizer.step(problem.closure(0), grad_scaler=grad_scaler)
    grad_scaler.update()
    before, state = problem.snapshot(), [s.clone() for s in _state_tensors(optimizer)]
    calls = []

    def closure():
        calls.append(None)
        return problem.loss(1) * (1e38 if len(calls) == overflowing_pass else 1.0)

    loss = optimizer.step(closure, grad_scaler=grad_scaler)
    grad_scaler.update()
    assert same(before, problem.snapshot())
    assert same(state, _state_tensors(optimizer))
    assert optimizer.telemetry.skipped
    assert loss.item() == optimizer.telemetry.loss.item()
    assert grad_scaler.get_scale() == INIT_SCALE / 2
    optimizer.step(problem.closure(1), grad_scaler=grad_scaler)
    grad_scaler.update()
    assert not optimizer.telemetry.skipped
    assert not same(before, problem.snapshot())


def _state_tensors(optimizer) -> list[torch.Tensor]:
    return [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]


def test_step__fp16_autocast_with_a_scaler_learns():
    problem = classification(dtype=torch.float32)
    optimizer = build(problem, XSAM, rho=0.05)
    grad_scaler = scaler()

    def closure():
        with torch.autocast("cpu", torch.float16):
            return problem.loss(0)

    losses = []
    for _ in range(10):
        losses.append(optimizer.step(closure, grad_scaler=grad_scaler).item())
        grad_scaler.update()
    assert losses[-1] < 0.9 * losses[0]


def test_step__a_disabled_scaler_changes_nothing():
    with_scaler, without = classification(), classification()
    grad_scaler = torch.amp.GradScaler("cpu", enabled=False)
    build(with_scaler).step(with_scaler.closure(0), grad_scaler=grad_scaler)
    grad_scaler.update()
    build(without).step(without.closure(0))
    assert same(with_scaler.snapshot(), without.snapshot())


def test_step__accumulates_under_a_scaler():
    pieces, whole = (classification(dtype=torch.float32) for _ in range(2))
    grad_scaler = scaler()
    closures = [pieces.closure(0, slice(row, row + 2)) for row in range(0, 8, 2)]
    build(pieces).step(closures, grad_scaler=grad_scaler)
    build(whole).step(whole.closure(0))
    assert largest_difference(pieces.snapshot(), whole.snapshot()) < 1e-5
