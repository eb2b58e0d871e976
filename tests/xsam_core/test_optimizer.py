"""The contract of step(): what it returns, what it leaves alone, and what it refuses."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from tests.xsam_core.problems import build, classification, largest_difference, same
from xsam_core import (
    ASAM,
    GSAM,
    SAM,
    WSAM,
    XSAM,
    ClosureError,
    SGDPlus,
    SparseGradientError,
    parameters,
)

ALL = [SAM, ASAM, WSAM, GSAM, SGDPlus, XSAM]


class ForwardError(Exception):
    pass


def failing_on_call(closure, number: int):
    calls = []

    def wrapped():
        calls.append(None)
        if len(calls) == number:
            raise ForwardError
        return closure()

    return wrapped


@pytest.mark.parametrize("variant", ALL)
def test_step__returns_the_loss_at_the_start_point_detached(variant):
    problem = classification()
    expected = problem.loss(0).item()
    loss = build(problem, variant).step(problem.closure(0))
    assert loss.item() == expected
    assert not loss.requires_grad


@pytest.mark.parametrize("call", [1, 2, 3, 10, 24])
def test_step__puts_theta_0_back_if_the_closure_raises_at_any_time(call):
    problem = classification(batch_norm=True)
    optimizer = build(problem, ascent_steps=2)
    before = problem.snapshot()
    with pytest.raises(ForwardError):
        optimizer.step(failing_on_call(problem.closure(0), call), search_alpha=True)
    assert same(before, problem.snapshot())
    assert all(p.grad is None for p in problem.params)
    assert problem.model[1].track_running_stats
    assert optimizer.step(problem.closure(0)).isfinite()


@pytest.mark.parametrize("variant", ALL)
def test_step__zero_gradient_leaves_the_parameters(variant):
    problem = classification()
    before = problem.snapshot()
    optimizer = build(problem, variant)
    optimizer.step(lambda: sum((p * 0).sum() for p in problem.params))
    assert same(before, problem.snapshot())
    assert optimizer.telemetry.angle_rad.item() == 0.0


def test_step__frozen_parameters_and_empty_groups_are_left_alone():
    problem = classification()
    frozen = problem.params[0].requires_grad_(False)
    before = frozen.clone()
    optimizer = XSAM(
        [{"params": problem.params[:2]}, {"params": []}, {"params": problem.params[2:]}], torch.optim.SGD, lr=0.1
    )
    optimizer.step(problem.closure(0))
    assert torch.equal(before, frozen)
    assert frozen.grad is None


def test_step__all_parameters_frozen_is_a_closure_error():
    problem = classification()
    optimizer = build(problem)
    problem.model.requires_grad_(False)
    with pytest.raises(ClosureError, match="without a graph"):
        optimizer.step(problem.closure(0))


@pytest.mark.parametrize("variant", ALL)
def test_step__several_groups_equal_one_group(variant):
    one, many = classification(), classification()
    whole = build(one, variant)
    groups = [{"params": [p]} for p in many.params]
    parts = variant(groups, torch.optim.SGD, lr=0.1, momentum=0.9, model=many.model)
    for step in range(3):
        whole.step(one.closure(step))
        parts.step(many.closure(step))
    assert largest_difference(one.snapshot(), many.snapshot()) < 1e-12


def test_step__unperturbed_group_stays_at_theta_0_during_the_ascent():
    problem = classification()
    biases = [p for p in problem.params if p.ndim == 1]
    weights = [p for p in problem.params if p.ndim == 2]
    optimizer = XSAM([{"params": weights}, {"params": biases, "perturb": False}], torch.optim.SGD, lr=0.1, rho=0.5)
    seen = []

    def closure():
        seen.append([p.detach().clone() for p in (*biases, *weights)])
        return problem.loss(0)

    optimizer.step(closure)
    num_biases = len(biases)
    assert all(same(seen[0][:num_biases], at[:num_biases]) for at in seen)
    assert not any(same(seen[0][num_biases:], at[num_biases:]) for at in seen[1:])
    final = problem.snapshot()
    for weight, at_theta_k in zip(weights, seen[1][num_biases:], strict=True):
        weight.data.copy_(at_theta_k)
    for bias, at_theta_0 in zip(biases, seen[0][:num_biases], strict=True):
        bias.data.copy_(at_theta_0)
    grads_at_theta_k = torch.autograd.grad(problem.loss(0), biases)
    assert largest_difference([b.grad for b in biases], list(grads_at_theta_k)) < 1e-12
    assert not same(final, problem.snapshot())


def test_step__rho_of_each_group_is_its_share_of_the_ascent():
    weights = nn.Parameter(torch.tensor([3.0], dtype=torch.float64))
    other = nn.Parameter(torch.tensor([4.0], dtype=torch.float64))
    optimizer = SAM([{"params": [weights], "rho": 0.1}, {"params": [other], "rho": 0.2}], torch.optim.SGD, lr=1.0)
    optimizer.step(lambda: (weights.square() + other.square()).sum() / 2)
    assert weights.grad.item() == pytest.approx(3.0 + 0.1 * 3 / 5)
    assert other.grad.item() == pytest.approx(4.0 + 0.2 * 4 / 5)


def test_step__rho_can_be_moved_like_a_learning_rate():
    problem = classification()
    optimizer = build(problem, SAM, rho=0.0)
    for group in optimizer.param_groups:
        group["rho"] = 0.25
    seen = []
    before = problem.snapshot()

    def closure():
        seen.append(problem.snapshot())
        return problem.loss(0)

    optimizer.step(closure)
    moved = sum((a - b).square().sum() for a, b in zip(seen[1], before, strict=True)).sqrt()
    assert moved.item() == pytest.approx(0.25)


def test_step__several_dtypes_in_one_model():
    problem = classification(dtype=torch.float32)
    problem.model[2].to(torch.float64)
    problem.model.insert(2, _Cast())
    optimizer = XSAM(problem.model.parameters(), torch.optim.SGD, lr=0.1)
    losses = [optimizer.step(problem.closure(0)).item() for _ in range(5)]
    assert losses[-1] < losses[0]
    assert {p.dtype for p in problem.model.parameters()} == {torch.float32, torch.float64}


class _Cast(nn.Module):
    def forward(self, x):
        return x.double()


def test_step__complex_parameters_climb_like_pairs_of_real_ones():
    z = nn.Parameter(torch.tensor([3.0 + 4.0j], dtype=torch.complex128))
    SAM([z], torch.optim.SGD, rho=0.5, lr=0.1).step(lambda: z.abs().square().sum() / 2)
    torch.testing.assert_close(z.detach(), torch.tensor([(3.0 + 4.0j) * (1 - 0.1 * 1.1)], dtype=torch.complex128))


def test_step__tied_weights_count_once():
    tied = nn.Linear(4, 4, bias=False).double()
    model = nn.Sequential(tied, nn.Tanh(), nn.Linear(4, 4, bias=False).double())
    model[2].weight = tied.weight
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.3, lr=0.1)
    inputs = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    before, seen = tied.weight.detach().clone(), []

    def closure():
        seen.append(tied.weight.detach().clone())
        return model(inputs).square().mean()

    optimizer.step(closure)
    assert (seen[1] - before).norm().item() == pytest.approx(0.3)


def test_step__parameter_reached_by_some_passes_only_counts_as_zero_elsewhere():
    used, sometimes = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    calls = []

    def closure():
        calls.append(None)
        return used.square().sum() + (sometimes.square().sum() if len(calls) == 1 else 0.0)

    SAM([used, sometimes], torch.optim.SGD, lr=0.1).step(closure)
    assert torch.equal(sometimes.detach(), torch.ones(2))
    assert not torch.equal(used.detach(), torch.ones(2))


def test_step__sparse_gradients_are_refused():
    embedding = nn.Embedding(5, 3, sparse=True)
    before = embedding.weight.detach().clone()
    with pytest.raises(SparseGradientError, match="parameter 0 of group 0"):
        SAM(embedding.parameters(), torch.optim.SGD, lr=0.1).step(lambda: embedding(torch.tensor([1])).sum())
    assert torch.equal(before, embedding.weight.detach())


BAD_CLOSURES = [
    (lambda problem: problem.loss(0).item(), "got float"),
    (lambda problem: problem.model(problem.inputs[0]), r"got shape \(8, 3\)"),
    (lambda problem: problem.loss(0).detach(), "without a graph"),
    (lambda problem: None, "got NoneType"),
]


@pytest.mark.parametrize(("make", "message"), BAD_CLOSURES)
def test_step__refuses_what_is_no_loss(make, message):
    problem = classification()
    before = problem.snapshot()
    with pytest.raises(ClosureError, match=message):
        build(problem).step(lambda: make(problem))
    assert same(before, problem.snapshot())


@pytest.mark.parametrize("arguments", [(), (None,)], ids=["step()", "step(None)"])
def test_step__without_closure_never_trains_plain(arguments):
    problem = classification()
    optimizer = build(problem)
    before = problem.snapshot()
    with pytest.raises(ClosureError, match="call add_closure"):
        optimizer.step(*arguments)
    problem.loss(0).backward()
    with pytest.raises(ClosureError, match="call add_closure"):
        optimizer.step(*arguments)
    assert same(before, problem.snapshot())
    with pytest.raises(ClosureError, match="at least one"):
        optimizer.step([])


def test_step__none_makes_the_base_optimizers_state_where_nothing_can_move():
    """As torch.distributed.checkpoint does it: lr 0, zero gradients, step(closure=None)."""
    problem = classification()
    optimizer = SAM(problem.params, torch.optim.AdamW)
    before = problem.snapshot()
    for param in problem.params:
        param.grad = torch.zeros_like(param)
    with pytest.raises(ClosureError):
        optimizer.step(closure=None)
    optimizer.param_groups[0]["lr"] = 0.0
    assert optimizer.step(closure=None) is None
    assert same(before, problem.snapshot())
    assert set(optimizer.state[problem.params[0]]) == {"step", "exp_avg", "exp_avg_sq"}
    assert optimizer.param_groups[0]["step_count"] == 0
    problem.params[0].grad.fill_(1.0)
    with pytest.raises(ClosureError):
        optimizer.step(closure=None)


def test_add_param_group__trains_the_new_group_with_its_own_options():
    problem = classification()
    optimizer = XSAM(problem.params[:2], torch.optim.SGD, lr=0.1, momentum=0.9)
    optimizer.step(problem.closure(0))
    optimizer.add_param_group({"params": problem.params[2:], "lr": 0.5, "rho": 0.01})
    assert optimizer.base_optimizer.param_groups is optimizer.param_groups
    assert optimizer.param_groups[1]["momentum"] == 0.9
    assert optimizer.param_groups[1]["step_count"] == 1
    before = problem.snapshot()
    optimizer.step(problem.closure(1))
    assert not same(before[2:], problem.snapshot()[2:])


def test_optimizer__learning_rate_schedulers_move_the_base_optimizer():
    problem = classification()
    optimizer = build(problem)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)
    rates = []
    for step in range(4):
        optimizer.step(problem.closure(step))
        scheduler.step()
        rates.append(optimizer.base_optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.0853553, 0.05, 0.0146447, 0.0], abs=1e-6)


def test_optimizer__step_hooks_run_once_per_step():
    problem = classification()
    optimizer = build(problem)
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("pre"))
    optimizer.register_step_post_hook(lambda *_: seen.append("post"))
    optimizer.step(problem.closure(0))
    assert seen == ["pre", "post"]


def test_optimizer__hooks_run_as_often_as_the_readme_says():
    problem = classification()
    optimizer = build(problem, SAM, ascent_steps=2)
    seen = []
    problem.params[0].register_post_accumulate_grad_hook(lambda _: seen.append("gradient"))
    handle = register_optimizer_step_post_hook(lambda *_: seen.append("any optimizer"))
    try:
        optimizer.step(problem.closure(0))
    finally:
        handle.remove()
    assert seen.count("gradient") == 3
    assert seen.count("any optimizer") == 2


def test_optimizer__zero_grad_and_repr_work_as_in_torch():
    problem = classification()
    optimizer = build(problem, rho=0.125)
    optimizer.step(problem.closure(0))
    optimizer.zero_grad()
    assert all(p.grad is None for p in problem.params)
    assert "XSAM (" in repr(optimizer)
    assert "rho: 0.125" in repr(optimizer)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_optimizer__copies_go_on_alike(duplicate):
    problem = classification(batch_norm=True)
    optimizer = build(problem)
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    optimizer.step(problem.closure(0))
    twin, twin_optimizer = duplicate((problem, optimizer))
    optimizer.step(problem.closure(1), search_alpha=True)
    twin_optimizer.step(twin.closure(1), search_alpha=True)
    assert same(problem.snapshot(), twin.snapshot())
    assert twin_optimizer.base_optimizer.param_groups is twin_optimizer.param_groups


def test_optimizer__works_with_named_parameters():
    problem = classification()
    optimizer = XSAM(problem.model.named_parameters(), torch.optim.SGD, lr=0.1)
    optimizer.step(problem.closure(0))
    assert optimizer.param_groups[0]["param_names"][0] == "0.weight"


@pytest.mark.parametrize("batch_norm", [False, True])
def test_step__autocast_around_the_step_sees_the_moved_weights(batch_norm):
    inside, outside = (classification(batch_norm=batch_norm, dtype=torch.float32) for _ in range(2))
    first, second = build(inside, rho=0.5), build(outside, rho=0.5)

    def closure():
        with torch.autocast("cpu", torch.bfloat16):
            return inside.loss(0)

    first.step(closure, search_alpha=True)
    with torch.autocast("cpu", torch.bfloat16):
        second.step(outside.closure(0), search_alpha=True)
    assert first.telemetry.curve == second.telemetry.curve
    assert same(inside.snapshot(), outside.snapshot())


@pytest.mark.parametrize(
    ("base", "options"), [(torch.optim.AdamW, {"fused": True}), (torch.optim.SGD, {"foreach": True})]
)
def test_step__bf16_autocast_in_the_closure_learns(base, options):
    problem = classification(dtype=torch.float32)
    optimizer = XSAM(problem.params, base, lr=0.05, rho=0.05, **options)

    def closure():
        with torch.autocast("cpu", torch.bfloat16):
            return problem.loss(0)

    losses = [optimizer.step(closure).item() for _ in range(10)]
    assert losses[-1] < 0.9 * losses[0]
    assert all(p.dtype is torch.float32 for p in problem.params)


def test_telemetry__describes_the_step():
    problem = classification()
    optimizer = build(problem, SAM, rho=0.1)
    assert optimizer.telemetry is None
    grads = torch.autograd.grad(problem.loss(0), problem.params)
    norm = sum(g.square().sum() for g in grads).sqrt().item()
    optimizer.step(problem.closure(0))
    seen = optimizer.telemetry.read()
    assert seen["first_grad_norm"] == pytest.approx(norm)
    assert seen["sharpness_gap"] == pytest.approx(seen["ascent_loss"] - seen["loss"])
    assert seen["sharpness_gap"] == pytest.approx(0.1 * norm, rel=0.1)
    assert "alpha" not in seen
    assert isinstance(optimizer.telemetry.angle_rad, torch.Tensor)
    assert not optimizer.telemetry.skipped


def test_max_grad_norm__clips_the_update_gradient():
    clipped, free = classification(), classification()
    first, second = build(clipped, max_grad_norm=0.05), build(free)
    first.step(clipped.closure(0))
    second.step(free.closure(0))
    norm = torch.nn.utils.clip_grad_norm_(free.params, 0.05)
    assert norm > 0.05
    assert largest_difference([p.grad for p in clipped.params], [p.grad for p in free.params]) < 1e-12


def test_max_grad_norm__leaves_a_short_gradient_alone():
    clipped, free = classification(), classification()
    build(clipped, max_grad_norm=100.0).step(clipped.closure(0))
    build(free).step(free.closure(0))
    assert same(clipped.snapshot(), free.snapshot())


@pytest.mark.parametrize("num_moved", [0, 1, 2])
def test_step__puts_theta_0_back_if_it_is_interrupted_between_two_batches_of_parameters(num_moved, monkeypatch):
    """Ctrl-C can come between any two operations, when some parameters have moved and others have no copy yet."""
    monkeypatch.setattr(parameters, "_BATCH_VALUES", 1)
    weights = [nn.Parameter(torch.full((3,), float(value))) for value in (1, 2, 3)]
    optimizer = SAM(weights, torch.optim.SGD, rho=0.5, lr=0.1)
    moves = 0

    def add_or_interrupt(*args, **kwargs):
        nonlocal moves
        if moves == num_moved:
            raise KeyboardInterrupt
        moves += 1
        add(*args, **kwargs)

    add = torch._foreach_add_
    monkeypatch.setattr(torch, "_foreach_add_", add_or_interrupt)
    with pytest.raises(KeyboardInterrupt):
        optimizer.step(lambda: sum(weight.square().sum() for weight in weights))
    assert [weight.tolist() for weight in weights] == [[1.0] * 3, [2.0] * 3, [3.0] * 3]
