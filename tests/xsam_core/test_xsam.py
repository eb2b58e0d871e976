"""XSAM: when it searches alpha, and what it does with it."""

import pytest
import torch
from torch import nn

from tests.xsam_core.problems import build, classification
from xsam_core import (
    SAM,
    XSAM,
    ArgumentError,
)
from xsam_core.xsam import DEFAULT_ALPHA_EVERY


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 2.0])
def test_step__parallel_directions_give_the_gradient_itself(alpha):
    weights = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
    slope = torch.tensor([0.3, -0.7, 0.1])
    optimizer = XSAM([weights], torch.optim.SGD, alpha=alpha, rho=0.1, lr=1.0)
    optimizer.step(lambda: torch.dot(slope, weights))
    torch.testing.assert_close(weights.detach(), torch.tensor([1.0, 2.0, 3.0]) - slope)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_step__opposite_directions_stay_finite(alpha):
    weight = nn.Parameter(torch.tensor([0.05, 0.0], dtype=torch.float64))
    # The ascent jumps over the maximum of -w^2 at 0, so the gradient there points back.
    optimizer = XSAM([weight], torch.optim.SGD, alpha=alpha, rho=0.1, lr=1.0)
    optimizer.step(lambda: -weight.square().sum())
    length = 0.1
    assert weight.grad[0].item() == pytest.approx(-length * torch.cos(torch.tensor(alpha * torch.pi)).item(), abs=1e-6)


def test_step__searches_among_negative_losses():
    problem = classification()
    optimizer = build(problem)
    optimizer.step(lambda: problem.loss(0) - 100.0)
    curve = optimizer.telemetry.curve
    assert max(curve.losses) < 0
    assert optimizer.alpha == curve.alphas[curve.losses.index(max(curve.losses))]


def test_step__counts_passes_and_probes():
    problem = classification()
    optimizer = build(problem, ascent_steps=3)
    grad_modes = []

    def closure():
        grad_modes.append(torch.is_grad_enabled())
        return problem.loss(0)

    optimizer.step(closure)
    assert grad_modes == [True] * 4 + [False] * 21


def test_step__searches_on_what_it_is_told_and_steps_on_its_own_loss():
    problem, other = classification(), classification()
    steps, probes = [], []

    def step_loss():
        steps.append(torch.is_grad_enabled())
        return problem.loss(0)

    def search_loss():
        probes.append(torch.is_grad_enabled())
        return (problem.loss(0) + problem.loss(1)) / 2

    optimizer = build(problem)
    optimizer.step(step_loss, search_closure=search_loss)
    assert (steps, probes) == ([True] * 2, [False] * 21)
    by_hand = build(other)
    by_hand.step(other.closure(0), search_closure=lambda: (other.loss(0) + other.loss(1)) / 2)
    assert optimizer.telemetry.curve == by_hand.telemetry.curve
    alone = classification()
    own = build(alone)
    own.step(alone.closure(0))
    assert own.telemetry.curve.losses != optimizer.telemetry.curve.losses
    probes.clear()
    optimizer.step(step_loss, search_alpha=False, search_closure=search_loss)
    assert probes == []


def test_search_closure__of_an_optimizer_without_a_search_is_refused():
    weights = nn.Parameter(torch.ones(2))
    optimizer = SAM([weights], torch.optim.SGD, rho=0.1, lr=0.1)
    with pytest.raises(ArgumentError, match="search_closure must be None: SAM has no alpha"):
        optimizer.step(lambda: weights.square().sum(), search_closure=weights.sum)


def test_step__first_step_searches_unless_told_otherwise():
    problem = classification()
    assert build(problem).step(problem.closure(0)) is not None
    told = build(problem)
    assert told.alpha == 1.0
    told.step(problem.closure(0), search_alpha=False)
    assert (told.alpha, told.telemetry.curve) == (1.0, None)
    told.step(problem.closure(1))
    assert told.telemetry.curve is not None


def test_step__searches_every_n_steps():
    problem = classification()
    optimizer = build(problem, alpha_every=3)
    searched = []
    for step in range(7):
        optimizer.step(problem.closure(step))
        searched.append(optimizer.telemetry.curve is not None)
    assert searched == [True, False, False, True, False, False, True]


def test_step__searches_when_the_angle_has_moved():
    problem = classification()
    optimizer = build(problem, alpha_angle_change=0.03, rho=0.5)
    angles, searched = [], []
    for step in range(12):
        optimizer.step(problem.closure(step))
        angles.append(optimizer.telemetry.angle_rad.item())
        searched.append(optimizer.telemetry.curve is not None)
    expected, reference = [], None
    for step in range(12):
        due = reference is None or abs(angles[step - 1] - reference) > 0.03
        reference = angles[step] if due else reference
        expected.append(due)
    assert searched == expected
    assert 1 < sum(searched) < 12


def test_alpha__can_be_set_within_its_range():
    optimizer = build(classification())
    optimizer.alpha = 0.5
    assert optimizer.alpha == 0.5
    with pytest.raises(ArgumentError, match="alpha must be"):
        optimizer.alpha = 3.0


def test_alpha_every__is_periodic_by_default():
    problem = classification()
    optimizer = build(problem)
    searched = []
    for step in range(2 * DEFAULT_ALPHA_EVERY + 1):
        optimizer.step(problem.closure(step))
        if optimizer.telemetry.curve is not None:
            searched.append(step)
    assert searched == [0, DEFAULT_ALPHA_EVERY, 2 * DEFAULT_ALPHA_EVERY]


def test_alpha_every__none_is_the_first_step_alone():
    problem = classification()
    optimizer = build(problem, alpha_every=None)
    searched = []
    for step in range(DEFAULT_ALPHA_EVERY + 1):
        optimizer.step(problem.closure(step))
        searched.append(optimizer.telemetry.curve is not None)
    assert searched.index(True) == 0
    assert sum(searched) == 1
