"""What once went wrong without a word: each of these either works now or says what is the matter."""

import numpy as np
import pytest
import torch
from torch import nn

from tests.xsam_core.problems import build, classification, largest_difference, same
from xsam_core import ASAM, GSAM, SAM, WSAM, XSAM, ArgumentError, ClosureError, NonFiniteError, SGDPlus

ALL = [SAM, ASAM, WSAM, GSAM, SGDPlus, XSAM]


# Loops that own the backward pass.


@pytest.mark.parametrize("arguments", [(), (None,)], ids=["step()", "step(None)"])
@pytest.mark.parametrize("variant", ALL)
def test_add_closure__bare_step_runs_the_queued_micro_batches(variant, arguments):
    queued, listed = classification(), classification()
    first, second = build(queued, variant), build(listed, variant)
    for step in range(3):
        rows = [slice(row, row + 2) for row in range(0, 8, 2)]
        for piece in rows:
            first.add_closure(queued.closure(step, piece))
        loss = first.step(*arguments)
        assert loss.item() == second.step([listed.closure(step, piece) for piece in rows]).item()
        first.zero_grad()
    assert same(queued.snapshot(), listed.snapshot())
    with pytest.raises(ClosureError, match="add_closure"):
        first.step(*arguments)


def test_add_closure__is_not_mixed_with_a_closure_given_to_step():
    problem = classification()
    optimizer = build(problem)
    optimizer.add_closure(problem.closure(0))
    with pytest.raises(ClosureError, match="1 of add_closure"):
        optimizer.step(problem.closure(1))
    optimizer.step(problem.closure(1))
    with pytest.raises(ClosureError, match="can be called, got Tensor"):
        optimizer.add_closure(problem.loss(0))


def test_add_closure__a_failed_step_leaves_no_closure_behind():
    problem = classification()
    optimizer = build(problem)
    optimizer.add_closure(problem.closure(0))
    optimizer.add_closure(lambda: None)
    with pytest.raises(ClosureError, match="got NoneType"):
        optimizer.step()
    with pytest.raises(ClosureError, match="call add_closure"):
        optimizer.step()


@pytest.mark.parametrize("variant", ALL)
def test_backward__then_clip_then_step_equals_clipping_by_option(variant):
    by_hand, by_option = classification(), classification()
    first, second = build(by_hand, variant), build(by_option, variant, max_grad_norm=0.05)
    for step in range(3):
        loss = first.backward(by_hand.closure(step))
        torch.nn.utils.clip_grad_norm_(by_hand.params, 0.05)
        assert first.step().item() == loss.item()
        second.step(by_option.closure(step))
    assert largest_difference(by_hand.snapshot(), by_option.snapshot()) < 1e-12
    assert first.param_groups[0]["step_count"] == 3


def test_backward__takes_no_second_order_before_the_step():
    problem = classification()
    optimizer = build(problem)
    before = problem.snapshot()
    optimizer.backward(problem.closure(0))
    with pytest.raises(ClosureError, match="computed a step already"):
        optimizer.backward(problem.closure(0))
    optimizer.zero_grad()
    with pytest.raises(ClosureError, match="needs a closure"):
        optimizer.step()
    optimizer.backward(problem.closure(0))
    with pytest.raises(ClosureError, match="another one"):
        optimizer.step(problem.closure(1))
    assert same(before, problem.snapshot())
    optimizer.zero_grad()
    optimizer.backward(problem.closure(0))
    problem.model.zero_grad()
    with pytest.raises(ClosureError, match="are gone"):
        optimizer.step()
    with pytest.raises(ClosureError, match="some that add_closure"):
        optimizer.backward()
    assert same(before, problem.snapshot())


def test_backward__an_overflow_under_a_scaler_skips_the_step():
    problem = classification(dtype=torch.float32)
    optimizer = build(problem)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    before = problem.snapshot()
    optimizer.backward(lambda: problem.loss(0) * float("inf"), grad_scaler=scaler)
    optimizer.step()
    scaler.update()
    assert optimizer.telemetry.skipped
    assert scaler.get_scale() == 2.0**9
    assert same(before, problem.snapshot())


# Gradients that are not the optimizer's.


@pytest.mark.parametrize("variant", ALL)
def test_step__a_closure_that_calls_backward_is_refused(variant):
    weight = nn.Parameter(torch.ones(3))
    optimizer = variant([weight], torch.optim.SGD, lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = weight.sum()
        loss.backward()
        return loss

    with pytest.raises(ClosureError, match="leave backward"):
        optimizer.step(closure)
    assert torch.equal(weight.detach(), torch.ones(3))
    assert weight.grad is None


def test_step__a_net_s_closure_that_calls_backward_and_clears_is_refused_by_name():
    problem = classification()
    optimizer = build(problem)

    def closure():
        loss = problem.loss(0)
        loss.backward()
        problem.model.zero_grad()
        return loss

    with pytest.raises(ClosureError, match="leave backward"):
        optimizer.step(closure)


@pytest.mark.parametrize("harm", ["backward", "zero_grad"])
def test_step__a_later_micro_batch_that_touches_gradients_is_refused(harm):
    problem = classification()
    optimizer = build(problem)

    def closure():
        if harm == "backward":
            problem.loss(1).backward()
        else:
            problem.model.zero_grad()
        return problem.loss(0)

    with pytest.raises(ClosureError, match="changed gradients"):
        optimizer.step([problem.closure(0), closure])


def test_step__gradients_of_a_backward_before_it_are_not_dropped():
    problem = classification()
    optimizer = build(problem)
    problem.loss(0).backward()
    with pytest.raises(ClosureError, match="gradients before the step"):
        optimizer.step(problem.closure(0))
    optimizer.zero_grad()
    optimizer.step(problem.closure(0))
    # The step's own gradients are no such ones, until something is added to them.
    optimizer.step(problem.closure(0))
    problem.loss(0).backward()
    with pytest.raises(ClosureError, match="gradients before the step"):
        optimizer.step(problem.closure(0))
    optimizer.zero_grad(set_to_none=False)
    optimizer.step(problem.closure(0))


def test_step__a_loss_that_reaches_no_parameter_is_refused():
    problem, other = classification(), classification()
    with pytest.raises(ClosureError, match="reaches no parameter"):
        build(problem).step(other.closure(0))


# Blocks that some passes reach and others do not.


def late_block(variant, *, explicit_zero: bool, bad: float = 1.0, **options) -> list[torch.Tensor]:
    a, b = nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.tensor([3.0]))
    optimizer = variant([a, b], torch.optim.SGD, lr=0.1, **options)
    calls = []

    def closure():
        calls.append(None)
        if len(calls) > 1:
            return a.pow(4).sum() + bad * b.square().sum()
        return a.pow(4).sum() + (0 * b.sum() if explicit_zero else 0.0)

    optimizer.step(closure)
    return [a.detach(), b.detach()]


CASES = [
    (SAM, {}),
    (ASAM, {}),
    (WSAM, {}),
    (WSAM, {"decouple": True}),
    (GSAM, {}),
    (SGDPlus, {}),
    (XSAM, {"alpha": 1.5}),
    (XSAM, {}),
]


@pytest.mark.parametrize("options", [{}, {"ascent_steps": 2}, {"perturb": False}, {"nonfinite": "deferred"}], ids=str)
@pytest.mark.parametrize(("variant", "more"), CASES, ids=lambda v: v.__name__ if isinstance(v, type) else str(v))
def test_step__a_block_reached_later_had_a_zero_gradient_before(variant, more, options):
    if options.get("perturb") is False:
        more = {**more, "rho": 0.0}
    late = late_block(variant, explicit_zero=False, **more, **options)
    told = late_block(variant, explicit_zero=True, **more, **options)
    torch.testing.assert_close(late, told)


@pytest.mark.parametrize(("variant", "more"), CASES, ids=lambda v: v.__name__ if isinstance(v, type) else str(v))
def test_step__nan_in_a_block_reached_later_raises(variant, more):
    more = {"alpha": 1.0} if variant is XSAM else more
    slope = nn.Parameter(torch.ones(1))
    late = nn.Parameter(torch.zeros(1))
    optimizer = variant([slope, late], torch.optim.SGD, lr=0.1, **more)
    calls = []

    def closure():
        calls.append(None)
        # The loss is finite, the gradient of sqrt at 0 times 0 is NaN.
        return slope.square().sum() + (0 * late.sqrt().sum() if len(calls) > 1 else 0.0)

    with pytest.raises(NonFiniteError):
        optimizer.step(closure)
    assert (slope.item(), late.item()) == (1.0, 0.0)


# Numbers and options.


@pytest.mark.parametrize(
    ("key", "value"),
    [("rho", -1.0), ("rho", float("nan")), ("rho_max", 0.0), ("adaptive_eta", float("inf")), ("maximize", True)],
)
def test_step__checks_the_numbers_of_a_group(key, value):
    problem = classification()
    optimizer = build(problem)
    before = problem.snapshot()
    optimizer.param_groups[0][key] = value
    with pytest.raises(ArgumentError, match=f"{key} must be"):
        optimizer.step(problem.closure(0))
    assert same(before, problem.snapshot())


@pytest.mark.parametrize("make", [lambda p: build(p, SAM), lambda p: build(p, XSAM, alpha=0.5)], ids=["SAM", "fixed"])
def test_step__a_search_that_there_is_none_of_is_refused(make):
    problem = classification()
    optimizer = make(problem)
    with pytest.raises(ArgumentError, match="search_alpha must not be True"):
        optimizer.step(problem.closure(0), search_alpha=True)
    optimizer.step(problem.closure(0), search_alpha=False)


def test_init__numpy_scalars_are_numbers_and_a_checkpoint_holds_floats(tmp_path):
    problem = classification()
    optimizer = build(
        problem, rho=np.float32(0.25), ascent_steps=np.int64(2), adaptive=np.True_, max_grad_norm=np.float64(1.0)
    )
    optimizer.param_groups[0]["rho_max"] = np.float64(0.5)
    optimizer.step(problem.closure(0))
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    group = torch.load(tmp_path / "state.pt", weights_only=True)["param_groups"][0]
    assert (group["rho"], group["rho_max"], group["adaptive"]) == (0.25, 0.5, True)
    assert type(group["rho"]) is float


def test_init__a_misspelt_option_is_blamed_on_whoever_asked():
    problem = classification()
    with pytest.raises(TypeError, match=r"neither XSAM nor its base optimizer SGD .*'ascent_step'.*'ascent_steps'"):
        XSAM(problem.params, torch.optim.SGD, ascent_step=2)
    with pytest.raises(TypeError, match="neither SAM nor its base optimizer AdamW has an option 'gamma'"):
        SAM(problem.params, torch.optim.AdamW, gamma=0.9)
    with pytest.raises(ArgumentError, match=r"'purturb'.*did you mean 'perturb'"):
        SAM([{"params": problem.params, "purturb": False}], torch.optim.SGD, lr=0.1)
    optimizer = SAM([{"params": problem.params[:2], "lr_scale": 0.5}], torch.optim.SGD, lr=0.1)
    with pytest.raises(ArgumentError, match="did you mean 'weight_decay'"):
        optimizer.add_param_group({"params": problem.params[2:], "weigth_decay": 0.1})


def test_init__differentiable_is_refused_by_name():
    with pytest.raises(ArgumentError, match="differentiable must be False"):
        build(classification(), SAM, differentiable=True)


# Base optimizers and memory.


class Early(torch.optim.SGD):
    """Makes state in its constructor, and for each group that is added later."""

    def add_param_group(self, param_group):
        super().add_param_group(param_group)
        for param in self.param_groups[-1]["params"]:
            self.state[param]["made_early"] = torch.ones(())


def test_base_optimizer__keeps_the_state_it_made_in_its_constructor():
    problem = classification()
    optimizer = SAM(problem.params[:2], Early, lr=0.1)
    optimizer.add_param_group({"params": problem.params[2:]})
    assert all("made_early" in optimizer.base_optimizer.state[p] for p in problem.params)
    assert optimizer.state is optimizer.base_optimizer.state
    optimizer.step(problem.closure(0))


def test_memory__complex_parameters_keep_one_copy():
    z = nn.Parameter(torch.tensor([3.0 + 4.0j]))
    optimizer = SAM([z], torch.optim.SGD, lr=0.1)
    for _ in range(5):
        optimizer.step(lambda: z.abs().square().sum())
        assert list(optimizer._memory._kept) == [id(z)]


def test_memory__replaced_parameters_are_forgotten():
    problem = classification()
    optimizer = build(problem)
    for _ in range(3):
        optimizer.step(problem.closure(0))
        for module in (problem.model[0], problem.model[2]):
            module.weight = nn.Parameter(module.weight.detach().clone())
        optimizer.param_groups[0]["params"] = problem.params
    optimizer.step(problem.closure(0))
    optimizer.step(problem.closure(0))
    assert len(optimizer._memory._kept) <= 2 * len(problem.params)
