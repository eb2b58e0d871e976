"""Arguments are checked when they are given; the message names the option, the value and what is allowed."""

import pytest
import torch

from tests.xsam_core.problems import build, classification
from xsam_core import (
    GSAM,
    SAM,
    WSAM,
    XSAM,
    ArgumentError,
)

BAD_ARGUMENTS = [
    (SAM, {"rho": -0.1}, "rho must be a finite number >= 0.0, got -0.1"),
    (SAM, {"rho": float("nan")}, "rho must be"),
    (SAM, {"rho": True}, "rho must be"),
    (SAM, {"rho": "0.1"}, "rho must be"),
    (SAM, {"ascent_steps": 0}, "ascent_steps must be a whole number >= 1, got 0"),
    (SAM, {"ascent_steps": 1.5}, "ascent_steps must be"),
    (SAM, {"scope": "world"}, "scope must be one of global, local, got 'world'"),
    (SAM, {"nonfinite": "warn"}, "nonfinite must be one of"),
    (SAM, {"max_grad_norm": 0.0}, "max_grad_norm must be a finite number > 0.0"),
    (SAM, {"drift_check_every": 0}, "drift_check_every must be"),
    (SAM, {"adaptive": 1}, "adaptive must be True or False, got 1"),
    (SAM, {"adaptive_eta": -1.0}, "adaptive_eta must be"),
    (SAM, {"maximize": True}, "maximize must be False"),
    (WSAM, {"gamma": 1.0}, "gamma must be"),
    (WSAM, {"gamma": -0.1}, "gamma must be"),
    (GSAM, {"gap_weight": -0.1}, "gap_weight must be"),
    (XSAM, {"rho_max": 0.0}, "rho_max must be a finite number > 0.0, got 0.0"),
    (XSAM, {"alpha": 2.5}, "alpha must be a finite number >= 0.0 and <= 2.0, got 2.5"),
    (XSAM, {"alpha_max": 0.0}, "alpha_max must be"),
    (XSAM, {"alpha_delta": 0.0}, "alpha_delta must be"),
    (XSAM, {"alpha_delta": 3.0}, "alpha_delta must be"),
    (XSAM, {"alpha_search": "golden"}, "alpha_search must be one of grid, adaptive"),
    (XSAM, {"alpha_every": 0}, "alpha_every must be"),
    (XSAM, {"alpha_angle_change": 0.0}, "alpha_angle_change must be"),
]


@pytest.mark.parametrize(("variant", "options", "message"), BAD_ARGUMENTS)
def test_init__refuses_bad_arguments_by_name(variant, options, message):
    with pytest.raises(ArgumentError, match=message.replace(".", r"\.")):
        build(classification(), variant, **options)


def test_init__refuses_bad_arguments_of_a_group():
    problem = classification()
    with pytest.raises(ArgumentError, match="rho must be"):
        SAM([{"params": problem.params, "rho": -1.0}], torch.optim.SGD, lr=0.1)


@pytest.mark.parametrize("base", [torch.optim.LBFGS, torch.optim.SparseAdam, "SGD", None, int])
def test_init__refuses_what_is_no_base_optimizer(base):
    with pytest.raises(ArgumentError, match="base_optimizer"):
        SAM(classification().params, base)


def test_init__refuses_a_base_optimizer_whose_options_have_our_names():
    with pytest.raises(ArgumentError, match="Adadelta, whose own option rho"):
        SAM(classification().params, torch.optim.Adadelta)


def test_init__alpha_of_rmsprop_and_alpha_of_xsam_are_two_things():
    problem = classification()
    optimizer = build(problem, XSAM, torch.optim.RMSprop, momentum=0.0, alpha=0.5)
    optimizer.step(problem.closure(0))
    assert (optimizer.alpha, optimizer.param_groups[0]["alpha"]) == (0.5, 0.99)


def test_init__passes_unknown_keywords_to_the_base_optimizer():
    with pytest.raises(TypeError, match="lrr"):
        SAM(classification().params, torch.optim.SGD, lrr=0.1)


def test_step__refuses_weights_that_do_not_fit():
    problem = classification()
    optimizer = build(problem)
    for weights in ([1.0], [0.7, 0.7], [-1.0, 2.0], [float("nan"), 1.0]):
        with pytest.raises(ArgumentError, match="weights must"):
            optimizer.step([problem.closure(0), problem.closure(1)], weights=weights)


def test_add_param_group__bad_group_is_not_added():
    problem = classification()
    optimizer = XSAM(problem.params[:2], torch.optim.SGD, lr=0.1)
    with pytest.raises(ArgumentError):
        optimizer.add_param_group({"params": problem.params[2:], "rho": -1.0})
    assert len(optimizer.param_groups) == 1
