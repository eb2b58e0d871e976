"""Saving and loading: bit-equal resume, old formats, torch.distributed.checkpoint."""

import copy
import io

import pytest
import torch
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from tests.xsam_core.problems import classification, same
from tests.xsam_core.test_variants import BASES
from xsam_core import ASAM, GSAM, SAM, WSAM, XSAM, CheckpointError, SGDPlus
from xsam_core.checkpoint import FORMAT_VERSION

VARIANTS = [
    (SAM, {"ascent_steps": 2}),
    (ASAM, {}),
    (WSAM, {}),
    (GSAM, {}),
    (SGDPlus, {}),
    (XSAM, {"alpha_every": 3}),
    (XSAM, {"alpha_every": 3, "alpha_search": "adaptive"}),
    (XSAM, {"alpha_angle_change": 0.01, "rho": 0.5}),
    (XSAM, {"alpha": 0.3}),
]
SGD_BASE = (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3})


def through_file(state_dict):
    buffer = io.BytesIO()
    torch.save(state_dict, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def build(problem, variant, options, base):
    cls, base_options = base
    return variant(problem.params, cls, model=problem.model, **base_options, **options)


def run(problem, optimizer, steps) -> list:
    curves = []
    for step in steps:
        optimizer.step(problem.closure(step))
        curves.append(optimizer.telemetry.curve)
    return curves


def resume_is_exact(variant, options, base, stop: int, transfer) -> None:
    straight, broken = classification(batch_norm=True), classification(batch_norm=True)
    expected = run(straight, straight_optimizer := build(straight, variant, options, base), range(8))
    first = build(broken, variant, options, base)
    run(broken, first, range(stop))

    restarted = classification(seed=1, batch_norm=True)
    restarted.inputs, restarted.targets = broken.inputs, broken.targets
    second = build(restarted, variant, options, base)
    restarted.model.load_state_dict(through_file(broken.model.state_dict()))
    transfer(broken.model, first, restarted.model, second)
    curves = run(restarted, second, range(stop, 8))

    assert same(straight.snapshot(), restarted.snapshot())
    assert same(list(straight.model.buffers()), list(restarted.model.buffers()))
    assert curves == expected[stop:]
    assert getattr(straight_optimizer, "alpha", None) == getattr(second, "alpha", None)


def by_state_dict(_, first, __, second) -> None:
    second.load_state_dict(through_file(first.state_dict()))


@pytest.mark.parametrize("stop", range(1, 8))
@pytest.mark.parametrize(("variant", "options"), VARIANTS, ids=lambda v: v.__name__ if isinstance(v, type) else str(v))
def test_resume__is_bit_equal_at_any_step(variant, options, stop):
    resume_is_exact(variant, options, SGD_BASE, stop, by_state_dict)


@pytest.mark.parametrize("base", BASES, ids=lambda b: b[0].__name__)
def test_resume__is_bit_equal_with_any_base_optimizer(base):
    resume_is_exact(XSAM, {"alpha_every": 3}, base, 4, by_state_dict)


@pytest.mark.parametrize("flatten", [False, True])
@pytest.mark.parametrize("base", [SGD_BASE, BASES[2]], ids=["SGD", "AdamW"])
def test_resume__is_bit_equal_through_distributed_checkpoint(base, flatten):
    options = StateDictOptions(flatten_optimizer_state_dict=flatten)

    def transfer(model, first, new_model, second) -> None:
        saved = through_file(get_optimizer_state_dict(model, first, options=options))
        set_optimizer_state_dict(new_model, second, saved, options=options)

    resume_is_exact(XSAM, {"alpha_every": 3, "alpha_search": "adaptive"}, base, 4, transfer)


def test_resume__continues_a_schedule():
    def training(problem):
        optimizer = build(problem, XSAM, {"alpha_every": 2}, SGD_BASE)
        return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=6)

    straight, broken = classification(), classification()
    optimizer, scheduler = training(straight)
    for step in range(6):
        optimizer.step(straight.closure(step))
        scheduler.step()
    saved = None
    for start, stop in ((0, 3), (3, 6)):
        optimizer, scheduler = training(broken)
        if saved is not None:
            optimizer.load_state_dict(saved[0])
            scheduler.load_state_dict(saved[1])
        for step in range(start, stop):
            optimizer.step(broken.closure(step))
            scheduler.step()
        saved = (through_file(optimizer.state_dict()), scheduler.state_dict())
    assert same(straight.snapshot(), broken.snapshot())
    assert optimizer.base_optimizer.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]


@pytest.mark.parametrize(("variant", "options"), VARIANTS, ids=lambda v: v.__name__ if isinstance(v, type) else str(v))
def test_state_dict__holds_the_base_optimizers_tensors_and_no_others(variant, options):
    problem, plain = classification(), classification()
    optimizer = build(problem, variant, options, SGD_BASE)
    run(problem, optimizer, range(2))
    base = torch.optim.SGD(plain.params, **SGD_BASE[1])
    plain.loss(0).backward()
    base.step()
    ours, theirs = optimizer.state_dict(), base.state_dict()
    assert {k: sorted(v) for k, v in ours["state"].items()} == {k: sorted(v) for k, v in theirs["state"].items()}
    ours_alone = ours["param_groups"][0].keys() - theirs["param_groups"][0].keys()
    assert len(ours_alone) <= 12
    assert not any(isinstance(ours["param_groups"][0][key], torch.Tensor) for key in ours_alone)


def test_load_state_dict__reads_format_1():
    """Format 1, as the library's first version wrote it: the numbers in an entry of their own."""
    problem, old = classification(), classification()
    optimizer = build(problem, XSAM, {}, SGD_BASE)
    run(problem, optimizer, range(3))
    now = optimizer.state_dict()
    ours = ("format_version", "step_count", "xsam_alpha", "xsam_searched_at", "xsam_searched_angle_rad")
    groups = [{k: v for k, v in g.items() if k not in (*ours, "xsam_last_angle_rad")} for g in now["param_groups"]]
    entry = {"format_version": 1, "step_count": 3, "alpha": 1.7}
    loaded = build(old, XSAM, {}, SGD_BASE)
    loaded.load_state_dict(through_file({"state": now["state"], "param_groups": groups, "sharpness_aware": entry}))
    assert loaded.alpha == 1.7
    assert loaded.param_groups[0]["step_count"] == 3
    assert loaded.param_groups[0]["format_version"] == FORMAT_VERSION
    assert torch.equal(
        loaded.state[old.params[0]]["momentum_buffer"], optimizer.state[problem.params[0]]["momentum_buffer"]
    )


def test_load_state_dict__takes_over_a_checkpoint_of_the_plain_base_optimizer():
    problem = classification()
    base = torch.optim.SGD(problem.params, **SGD_BASE[1])
    problem.loss(0).backward()
    base.step()
    optimizer = build(problem, XSAM, {"rho": 0.3}, SGD_BASE)
    optimizer.load_state_dict(through_file(base.state_dict()))
    assert optimizer.param_groups[0]["rho"] == 0.3
    momentum = base.state[problem.params[0]]["momentum_buffer"]
    assert torch.equal(optimizer.base_optimizer.state[problem.params[0]]["momentum_buffer"], momentum)
    optimizer.zero_grad()
    optimizer.step(problem.closure(1))


def test_load_state_dict__moves_from_sam_to_xsam():
    problem = classification()
    sam = build(problem, SAM, {}, SGD_BASE)
    run(problem, sam, range(2))
    xsam = build(problem, XSAM, {}, SGD_BASE)
    xsam.load_state_dict(sam.state_dict())
    assert (xsam.alpha, xsam.param_groups[0]["step_count"]) == (1.0, 2)
    xsam.step(problem.closure(2))
    assert xsam.telemetry.curve is not None


def test_load_state_dict__refuses_a_newer_format_and_changes_nothing():
    problem = classification()
    optimizer = build(problem, XSAM, {}, SGD_BASE)
    newer = copy.deepcopy(optimizer.state_dict())
    newer["param_groups"][0].update(format_version=FORMAT_VERSION + 1, lr=9.0)
    with pytest.raises(CheckpointError, match=rf"format {FORMAT_VERSION + 1}, this library reads up to"):
        optimizer.load_state_dict(newer)
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_load_state_dict__refuses_other_things():
    problem = classification()
    optimizer = build(problem, XSAM, {}, SGD_BASE)
    with pytest.raises(CheckpointError, match="not an optimizer's state dict: keys are"):
        optimizer.load_state_dict(problem.model.state_dict())
    two_groups = {"state": {}, "param_groups": optimizer.state_dict()["param_groups"] * 2}
    with pytest.raises(CheckpointError, match="2 param groups, this optimizer has 1"):
        optimizer.load_state_dict(two_groups)


def test_load_state_dict__does_not_change_its_argument():
    problem = classification()
    optimizer = build(problem, XSAM, {}, SGD_BASE)
    saved = torch.optim.SGD(problem.params, lr=0.3).state_dict()
    before = copy.deepcopy(saved)
    optimizer.load_state_dict(saved)
    assert saved == before


def test_load_state_dict__keeps_group_and_state_shared_with_the_base_optimizer():
    problem = classification()
    optimizer = build(problem, XSAM, {}, SGD_BASE)
    run(problem, optimizer, range(2))
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert optimizer.base_optimizer.param_groups is optimizer.param_groups
    assert optimizer.base_optimizer.state is optimizer.state


def test_load_state_dict__checks_the_options_it_brings():
    problem = classification()
    optimizer = build(problem, XSAM, {}, SGD_BASE)
    for key, value in (("maximize", True), ("rho", -1.0), ("differentiable", True)):
        saved = copy.deepcopy(optimizer.state_dict())
        saved["param_groups"][0].update({key: value, "lr": 9.0})
        with pytest.raises(CheckpointError, match=f"group 0 .*{key} must be"):
            optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize("other", ["old_p", "momentum_buffer"])
def test_load_state_dict__refuses_the_state_of_another_optimizer(other):
    """A well-known SAM saves its copy of the weights, where the base optimizer's state should be."""
    problem = classification()
    optimizer = build(problem, SAM, {}, (torch.optim.AdamW, {"lr": 0.1}))
    state = {index: {other: torch.zeros_like(p)} for index, p in enumerate(problem.params)}
    groups = [{**torch.optim.AdamW(problem.params, lr=0.1).state_dict()["param_groups"][0], "rho": 0.05}]
    with pytest.raises(CheckpointError, match=f"'{other}'.* AdamW keeps .*'exp_avg'"):
        optimizer.load_state_dict({"state": state, "param_groups": groups})
    assert not optimizer.state


def test_load_state_dict__old_weights_are_refused_where_the_base_optimizer_keeps_nothing():
    problem = classification()
    optimizer = build(problem, SAM, {}, (torch.optim.SGD, {"lr": 0.1}))
    state = {index: {"old_p": torch.zeros_like(p)} for index, p in enumerate(problem.params)}
    with pytest.raises(CheckpointError, match="another optimizer's"):
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def test_load_state_dict__rho_is_the_checkpoints_and_k_the_constructors():
    problem = classification()
    saved = build(problem, SAM, {"rho": 0.3, "rho_warmup_steps": 7, "ascent_steps": 2}, SGD_BASE).state_dict()
    optimizer = build(problem, SAM, {"rho": 0.1, "ascent_steps": 3}, SGD_BASE)
    optimizer.load_state_dict(saved)
    assert (optimizer.param_groups[0]["rho"], optimizer.param_groups[0]["rho_warmup_steps"]) == (0.3, 7)
    assert optimizer.ascent_steps == 3
