"""NaN and infinity, raised at once or one step later."""

import copy

import pytest
import torch

from tests.xsam_core.problems import build, classification, same
from xsam_core import (
    ASAM,
    GSAM,
    SAM,
    WSAM,
    XSAM,
    NonFiniteError,
    SGDPlus,
)

ALL = [SAM, ASAM, WSAM, GSAM, SGDPlus, XSAM]


@pytest.mark.parametrize("bad_call", [1, 2, 3])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("variant", ALL)
def test_step__non_finite_loss_raises_a_named_error_and_changes_nothing(variant, bad, bad_call):
    problem = classification()
    optimizer = build(problem, variant, ascent_steps=2)
    optimizer.step(problem.closure(0))
    before, momentum = problem.snapshot(), copy.deepcopy(optimizer.state_dict()["state"])
    calls = []

    def closure():
        calls.append(None)
        return problem.loss(1) + (bad if len(calls) == bad_call else 0.0)

    with pytest.raises(NonFiniteError, match="step 1") as caught:
        optimizer.step(closure, search_alpha=False)
    assert caught.value.step == 1
    assert same(before, problem.snapshot())
    after = optimizer.state_dict()["state"]
    assert all(torch.equal(momentum[key]["momentum_buffer"], after[key]["momentum_buffer"]) for key in momentum)
    assert optimizer.step(problem.closure(1)).isfinite()


@pytest.mark.parametrize("options", [{"momentum": 0.9}, {"momentum": 0.9, "fused": True}], ids=["plain", "fused"])
def test_step__deferred_check_keeps_the_parameters_and_raises_in_the_next_step(options):
    problem = classification()
    optimizer = build(problem, SAM, nonfinite="deferred", **options)
    optimizer.step(problem.closure(0))
    before = problem.snapshot()
    optimizer.step(lambda: problem.loss(1) * float("nan"))
    assert same(before, problem.snapshot())
    with pytest.raises(NonFiniteError, match="step 1"):
        optimizer.step(problem.closure(2))
    optimizer.step(problem.closure(2))
    assert all(p.isfinite().all() for p in problem.params)
    assert not same(before, problem.snapshot())


def test_step__deferred_check_walks_the_same_way_as_the_immediate_one():
    immediate, deferred = classification(), classification()
    first, second = build(immediate), build(deferred, nonfinite="deferred")
    for step in range(3):
        first.step(immediate.closure(step))
        second.step(deferred.closure(step))
    assert same(immediate.snapshot(), deferred.snapshot())


def test_step__ignored_non_finite_gradients_reach_the_parameters():
    problem = classification()
    build(problem, SAM, nonfinite="ignore").step(lambda: problem.loss(0) * float("nan"))
    assert any(p.isnan().any() for p in problem.params)


def test_step__probes_that_are_not_finite_never_win():
    problem = classification()
    optimizer = build(problem)
    calls = []

    def closure():
        calls.append(None)
        loss = problem.loss(0)
        return loss * float("nan") if len(calls) == 12 else loss

    optimizer.step(closure)
    losses = torch.tensor(optimizer.telemetry.curve.losses)
    assert losses.isnan().sum() == 1
    assert losses[optimizer.telemetry.curve.alphas.index(optimizer.alpha)].isfinite()
