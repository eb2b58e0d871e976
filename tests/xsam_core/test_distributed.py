"""Several ranks: one spawn of two gloo processes runs all scenarios, the tests look at what they reported."""

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from tests.xsam_core.problems import Problem, classification, largest_difference, same
from tests.xsam_core.ranks import on_ranks
from tests.xsam_core.traffic import Traffic
from xsam_core import GSAM, SAM, XSAM, ClosureError, NonFiniteError, ReplicaDriftError
from xsam_core.distributed import bucketed

WORLD_SIZE = 2
NUM_STEPS = 4
NUM_PARAMS = 5 * 8 + 8 + 8 * 3 + 3
BASE = {"lr": 0.2, "momentum": 0.9, "rho": 0.2}


def half() -> slice:
    """Return this rank's rows of the batch of eight."""
    rank = dist.get_rank()
    return slice(4 * rank, 4 * rank + 4)


def ddp_problem(**options) -> Problem:
    problem = classification(**options)
    problem.model = DistributedDataParallel(problem.model)
    return problem


def walk(problem: Problem, optimizer, rows: slice, num_steps: int = NUM_STEPS) -> dict:
    alphas, curves = [], []
    for step in range(num_steps):
        optimizer.step(problem.closure(step, rows))
        alphas.append(getattr(optimizer, "alpha", None))
        curve = optimizer.telemetry.curve
        curves.append(None if curve is None else curve.losses)
    return {"params": problem.snapshot(), "alphas": alphas, "curves": curves}


def global_walk(variant, **options) -> dict:
    problem = ddp_problem()
    optimizer = variant(problem.params, torch.optim.SGD, model=problem.model, **BASE, **options)
    return walk(problem, optimizer, half())


def whole_batch_walk(variant, **options) -> dict:
    problem = classification()
    return walk(problem, variant(problem.params, torch.optim.SGD, model=problem.model, **BASE, **options), slice(None))


GLOBAL_CASES = {
    "xsam_grid": (XSAM, {"alpha_every": 2}),
    "xsam_adaptive_k2": (XSAM, {"alpha_every": 1, "alpha_search": "adaptive", "ascent_steps": 2}),
    "xsam_angle": (XSAM, {"alpha_angle_change": 1e-3}),
    "gsam_clipped": (GSAM, {"max_grad_norm": 0.1}),
}


def plain_model_walk() -> dict:
    """A model without DDP, whose ranks are named: the optimizer averages."""
    problem = classification()
    optimizer = XSAM(
        problem.params, torch.optim.SGD, model=problem.model, process_group=dist.group.WORLD, alpha_every=2, **BASE
    )
    return walk(problem, optimizer, half())


def accumulated_walk() -> dict:
    problem = ddp_problem()
    optimizer = XSAM(problem.params, torch.optim.SGD, model=problem.model, **BASE)
    start = 4 * dist.get_rank()
    with Traffic() as traffic:
        for step in range(NUM_STEPS):
            optimizer.step([problem.closure(step, slice(row, row + 2)) for row in (start, start + 2)])
    return {"params": problem.snapshot(), "sizes": traffic.sizes}


def traffic_of_one_step(scope: str, ascent_steps: int, **options) -> dict:
    problem = ddp_problem()
    optimizer = XSAM(
        problem.params,
        torch.optim.SGD,
        model=problem.model,
        scope=scope,
        ascent_steps=ascent_steps,
        **BASE,
        **options,
    )
    # DDP settles its buckets during its first two iterations.
    for step in range(2):
        optimizer.step(problem.closure(step, half()))
    seen = {}
    for name, search in (("plain", False), ("search", True)):
        with Traffic() as traffic:
            optimizer.step(problem.closure(2, half()), search_alpha=search)
        seen[name] = traffic.sizes
    return seen


def local_walk() -> dict:
    problem = ddp_problem()
    optimizer = XSAM(problem.params, torch.optim.SGD, model=problem.model, scope="local", alpha_every=2, **BASE)
    return walk(problem, optimizer, half())


def local_first_update() -> dict:
    """One local step with k = 2 and a fixed alpha, and the update this rank would have made alone."""
    problem, alone = ddp_problem(), classification()
    options = {"alpha": 0.7, "ascent_steps": 2, **BASE}
    XSAM(problem.params, torch.optim.SGD, model=problem.model, scope="local", **options).step(
        problem.closure(0, half())
    )
    XSAM(alone.params, torch.optim.SGD, **options).step(alone.closure(0, half()))
    return {"together": [p.grad for p in problem.params], "alone": [p.grad for p in alone.params]}


def batch_norm_walk() -> dict:
    problem = ddp_problem(batch_norm=True)
    optimizer = XSAM(problem.params, torch.optim.SGD, model=problem.model, alpha_every=2, **BASE)
    with Traffic() as traffic:
        result = walk(problem, optimizer, half(), num_steps=3)
    norm = problem.model.module[1]
    # A forward pass broadcasts rank 0's buffers, as DDP does in training without SAM.
    problem.model(problem.inputs[0])
    buffers = [norm.running_mean.clone(), norm.running_var.clone()]
    return {**result, "buffers": buffers, "count": norm.num_batches_tracked.item() - 1, "sizes": traffic.sizes}


def drift() -> dict:
    problem = ddp_problem()
    optimizer = SAM(problem.params, torch.optim.SGD, model=problem.model, drift_check_every=2, **BASE)
    for step in range(4):
        optimizer.step(problem.closure(step, half()))
    if dist.get_rank() == 1:
        with torch.no_grad():
            problem.params[2][0, 0] += 1e-15
    optimizer.step(problem.closure(4, half()))
    try:
        optimizer.step(problem.closure(5, half()))
    except ReplicaDriftError as e:
        return {"step": e.step, "message": str(e)}
    return {"step": None, "message": ""}


def nan_on_one_rank(scope: str) -> dict:
    problem = ddp_problem()
    optimizer = XSAM(problem.params, torch.optim.SGD, model=problem.model, scope=scope, **BASE)
    optimizer.step(problem.closure(0, half()))
    before = problem.snapshot()
    factor = float("nan") if dist.get_rank() == 1 else 1.0
    try:
        optimizer.step(lambda: problem.loss(1, half()) * factor)
    except NonFiniteError as e:
        raised = e.step
    else:
        raised = None
    unchanged = same(before, problem.snapshot())
    optimizer.step(problem.closure(1, half()))
    return {"raised": raised, "unchanged": unchanged, "params": problem.snapshot()}


def overflow_on_one_rank(scope: str) -> dict:
    problem = ddp_problem(dtype=torch.float32)
    optimizer = XSAM(problem.params, torch.optim.SGD, model=problem.model, scope=scope, **BASE)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=100)
    scales, skipped = [], []
    for step in range(3):
        factor = float("inf") if dist.get_rank() == 1 and step == 1 else 1.0
        optimizer.step(lambda factor=factor: problem.loss(0, half()) * factor, grad_scaler=scaler)
        scaler.update()
        scales.append(scaler.get_scale())
        skipped.append(optimizer.telemetry.skipped)
    return {"scales": scales, "skipped": skipped, "params": problem.snapshot()}


def sharded(problem: Problem) -> Problem:
    fully_shard(problem.model[0])
    fully_shard(problem.model)
    return problem


def whole(params) -> list[torch.Tensor]:
    return [p.detach().full_tensor().clone() for p in params]


FSDP_CASES = {
    "xsam": (XSAM, {"alpha_every": 2, "ascent_steps": 2}),
    "gsam_adaptive_clipped": (GSAM, {"adaptive": True, "max_grad_norm": 0.3}),
}


def fsdp_walk(variant, **options) -> dict:
    problem = sharded(classification())
    optimizer = variant(problem.params, torch.optim.SGD, model=problem.model, **BASE, **options)
    alphas, norms = [], []
    for step in range(NUM_STEPS):
        optimizer.step(problem.closure(step, half()))
        alphas.append(getattr(optimizer, "alpha", None))
        norms.append(optimizer.telemetry.read()["ascent_grad_norm"])
    params = whole(problem.params)
    loss_after = problem.loss(0, half()).item()
    return {"params": params, "alphas": alphas, "norms": norms, "loss_after": loss_after}


def fsdp_resume() -> dict:
    straight, broken = sharded(classification()), sharded(classification())

    def optimizer_of(problem):
        return XSAM(problem.params, torch.optim.AdamW, model=problem.model, lr=0.01, rho=0.1, alpha_every=3)

    first, second = optimizer_of(straight), optimizer_of(broken)
    for step in range(5):
        first.step(straight.closure(step, half()))
        if step < 2:
            second.step(broken.closure(step, half()))
    saved = copy.deepcopy(get_optimizer_state_dict(broken.model, second))
    third = optimizer_of(broken)
    set_optimizer_state_dict(broken.model, third, saved)
    for step in range(2, 5):
        third.step(broken.closure(step, half()))
    return {"straight": whole(straight.params), "resumed": whole(broken.params), "alpha": (first.alpha, third.alpha)}


def fsdp_refusals() -> list[str]:
    problem = sharded(classification())
    messages = []
    for options in ({"model": None}, {"model": problem.model, "scope": "local"}):
        try:
            XSAM(problem.params, torch.optim.SGD, lr=0.1, **options)
        except ValueError as e:
            messages.append(str(e))
    return messages


LATE_CASES = {"told": True, "found": False}


def ddp_wrapped_later(scope: str, *, is_told: bool) -> dict:
    """The optimizer was given the model before DDP wrapped it, or no model at all."""
    problem = classification(batch_norm=True)
    optimizer = XSAM(
        problem.params,
        torch.optim.SGD,
        model=problem.model if is_told else None,
        scope=scope,
        alpha_every=2,
        **BASE,
    )
    problem.model = DistributedDataParallel(problem.model)
    with Traffic() as traffic:
        result = walk(problem, optimizer, half())
    return {**result, "buffers": list(problem.model.module.buffers()), "sizes": traffic.sizes}


def ddp_told_walk(scope: str) -> dict:
    problem = ddp_problem(batch_norm=True)
    optimizer = XSAM(problem.params, torch.optim.SGD, model=problem.model, scope=scope, alpha_every=2, **BASE)
    return {**walk(problem, optimizer, half()), "buffers": list(problem.model.module.buffers())}


class WithRootParameter(nn.Module):
    """FSDP2 does not reshard the root after a forward pass, so what it gathered can go stale there."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.scale = nn.Parameter(torch.full((4,), 1.5, dtype=torch.float64))

    def forward(self, x):
        return self.inner(x) * self.scale.mean()


def rooted_problem() -> Problem:
    problem = classification()
    problem.model = WithRootParameter(problem.model)
    return problem


def fsdp_sharded_later() -> dict:
    """As Accelerate does it: optimizer first, then fully_shard, then the groups' parameters are replaced."""
    problem = rooted_problem()
    optimizer = XSAM(problem.params, torch.optim.SGD, model=problem.model, alpha_every=1, **BASE)
    fully_shard(problem.model.inner[0])
    fully_shard(problem.model)
    try:
        optimizer.step(problem.closure(0, half()))
    except ClosureError as e:
        stale = str(e)
    problem.model.zero_grad()
    optimizer.param_groups[0]["params"] = list(problem.model.parameters())
    alphas = []
    for step in range(NUM_STEPS):
        optimizer.step(problem.closure(step, half()))
        alphas.append(optimizer.alpha)
    return {"params": whole(problem.params), "alphas": alphas, "stale": stale}


def fsdp_unknown() -> str:
    """The model that was told is not the one that is sharded."""
    problem, other = sharded(classification()), classification()
    optimizer = XSAM(other.params, torch.optim.SGD, model=other.model, **BASE)
    optimizer.param_groups[0]["params"] = list(problem.model.parameters())
    before = whole(problem.params)
    try:
        optimizer.step(problem.closure(0, half()))
    except ValueError as e:
        message = str(e)
    assert same(before, whole(problem.params))
    optimizer.attach(problem.model)
    optimizer.step(problem.closure(0, half()))
    return message


def late_block_walk() -> dict:
    """Each rank reaches another block, in its second pass; deferred, so that the guard's copies are used too."""
    shared, blocks = nn.Parameter(torch.ones(2)), [nn.Parameter(torch.full((2,), 3.0)) for _ in range(2)]
    model = nn.ParameterList([shared, *blocks])
    optimizer = XSAM(
        model.parameters(),
        torch.optim.SGD,
        model=model,
        process_group=dist.group.WORLD,
        scope="local",
        alpha=1.2,
        nonfinite="deferred",
        lr=0.1,
    )
    calls = []

    def closure():
        calls.append(None)
        own = blocks[dist.get_rank()].square().sum()
        return shared.pow(4).sum() + (own if len(calls) % 2 == 0 else 0.0)

    optimizer.step(closure)
    good = [p.detach().clone() for p in model]
    optimizer.step(lambda: closure() * (float("nan") if dist.get_rank() == 1 else 1.0))
    return {"good": good, "after_nan": [p.detach().clone() for p in model]}


def every_scenario() -> dict:
    return {
        "late": {
            (scope, name): ddp_wrapped_later(scope, is_told=is_told)
            for scope in ("global", "local")
            for name, is_told in LATE_CASES.items()
        },
        "told": {scope: ddp_told_walk(scope) for scope in ("global", "local")},
        "fsdp_later": fsdp_sharded_later(),
        "fsdp_unknown": fsdp_unknown(),
        "late_block": late_block_walk(),
        "global": {name: global_walk(variant, **options) for name, (variant, options) in GLOBAL_CASES.items()},
        "plain": plain_model_walk(),
        "accumulated": accumulated_walk(),
        "traffic": {(scope, k): traffic_of_one_step(scope, k) for scope in ("global", "local") for k in (1, 3)},
        "local": local_walk(),
        "local_update": local_first_update(),
        "batch_norm": batch_norm_walk(),
        "drift": drift(),
        "nan": {scope: nan_on_one_rank(scope) for scope in ("global", "local")},
        "overflow": {scope: overflow_on_one_rank(scope) for scope in ("global", "local")},
        "fsdp": {name: fsdp_walk(variant, **options) for name, (variant, options) in FSDP_CASES.items()},
        "fsdp_resume": fsdp_resume(),
        "fsdp_refusals": fsdp_refusals(),
    }


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return on_ranks(every_scenario, tmp_path_factory.mktemp("ranks"), WORLD_SIZE)


@pytest.mark.parametrize("name", GLOBAL_CASES)
def test_global__parameters_and_alpha_are_the_same_on_both_ranks(ranks, name):
    first, second = (rank["global"][name] for rank in ranks)
    assert same(first["params"], second["params"])
    assert first["alphas"] == second["alphas"]
    assert first["curves"] == second["curves"]


@pytest.mark.parametrize("name", GLOBAL_CASES)
def test_global__two_half_batches_equal_one_batch(ranks, name):
    variant, options = GLOBAL_CASES[name]
    expected = whole_batch_walk(variant, **options)
    seen = ranks[0]["global"][name]
    assert largest_difference(seen["params"], expected["params"]) < 1e-9
    if variant is XSAM:
        assert seen["alphas"] == pytest.approx(expected["alphas"], rel=1e-6)
    assert [c is None for c in seen["curves"]] == [c is None for c in expected["curves"]]


def test_global__a_plain_model_with_named_ranks_is_averaged_too(ranks):
    assert largest_difference(ranks[0]["plain"]["params"], ranks[0]["global"]["xsam_grid"]["params"]) < 1e-9
    assert same(ranks[0]["plain"]["params"], ranks[1]["plain"]["params"])


def test_global__accumulation_exchanges_gradients_once_per_pass(ranks):
    expected = whole_batch_walk(XSAM)
    for rank in ranks:
        assert largest_difference(rank["accumulated"]["params"], expected["params"]) < 1e-9
        full = [size for size in rank["accumulated"]["sizes"]["allreduce_"] if size >= NUM_PARAMS]
        assert len(full) == 2 * NUM_STEPS


@pytest.mark.parametrize("k", [1, 3])
def test_traffic__global_exchanges_k_plus_1_models_and_one_curve(ranks, k):
    for rank in ranks:
        seen = rank["traffic"]["global", k]
        assert seen["plain"] == {"allreduce_": [NUM_PARAMS] * (k + 1)}
        assert seen["search"] == {"allreduce_": [NUM_PARAMS] * (k + 1) + [21]}


@pytest.mark.parametrize("k", [1, 3])
def test_traffic__local_exchanges_one_model_and_one_curve(ranks, k):
    for rank in ranks:
        seen = rank["traffic"]["local", k]
        # Two numbers ride along: whether the step is finite, and the angle.
        assert seen["plain"] == {"allreduce_": [NUM_PARAMS + 2]}
        assert seen["search"] == {"allreduce_": [21, NUM_PARAMS + 2]}


def test_local__parameters_and_alpha_are_the_same_on_both_ranks(ranks):
    first, second = (rank["local"] for rank in ranks)
    assert same(first["params"], second["params"])
    assert first["alphas"] == second["alphas"]
    assert not same(first["params"], ranks[0]["global"]["xsam_grid"]["params"])


def test_local__update_is_the_mean_of_what_each_rank_would_have_done_alone(ranks):
    alone = [rank["local_update"]["alone"] for rank in ranks]
    assert not same(*alone)
    means = [(a + b) / 2 for a, b in zip(*alone, strict=True)]
    for rank in ranks:
        assert largest_difference(rank["local_update"]["together"], means) < 1e-12


def test_batch_norm__counts_one_batch_per_step_and_stays_in_step(ranks):
    first, second = (rank["batch_norm"] for rank in ranks)
    assert first["count"] == second["count"] == 3
    assert same(first["params"], second["params"])
    assert same(first["buffers"], second["buffers"])
    # Buffers travel with the first forward of a step only: not with later passes, not with 21 probes.
    assert len(first["sizes"]["broadcast_"]) <= 3 * 3


def test_drift__is_seen_on_all_ranks_and_names_step_and_parameter(ranks):
    for rank in ranks:
        assert rank["drift"]["step"] == 5
        assert "after step 5" in rank["drift"]["message"]
    first, second = (rank["drift"]["message"] for rank in ranks)
    assert first == second


@pytest.mark.parametrize("scope", ["global", "local"])
def test_nan__on_one_rank_raises_on_all_and_changes_nothing(ranks, scope):
    for rank in ranks:
        assert rank["nan"][scope]["raised"] == 1
        assert rank["nan"][scope]["unchanged"]
    assert same(ranks[0]["nan"][scope]["params"], ranks[1]["nan"][scope]["params"])


@pytest.mark.parametrize("scope", ["global", "local"])
def test_overflow__on_one_rank_skips_on_all_and_shrinks_every_scaler(ranks, scope):
    for rank in ranks:
        assert rank["overflow"][scope]["skipped"] == [False, True, False]
        assert rank["overflow"][scope]["scales"] == [2.0**10, 2.0**9, 2.0**9]
    assert same(ranks[0]["overflow"][scope]["params"], ranks[1]["overflow"][scope]["params"])


@pytest.mark.parametrize("name", FSDP_CASES)
def test_fsdp__walks_like_one_unsharded_model(ranks, name):
    variant, options = FSDP_CASES[name]
    problem = classification()
    optimizer = variant(problem.params, torch.optim.SGD, model=problem.model, **BASE, **options)
    expected = walk(problem, optimizer, slice(None))
    for rank in ranks:
        assert largest_difference(rank["fsdp"][name]["params"], expected["params"]) < 1e-9
        assert rank["fsdp"][name]["alphas"] == expected["alphas"]
    assert ranks[0]["fsdp"][name]["norms"] == ranks[1]["fsdp"][name]["norms"]
    halves = [
        nn.functional.cross_entropy(problem.model(problem.inputs[0][r]), problem.targets[0][r]).item()
        for r in (slice(0, 4), slice(4, 8))
    ]
    # The forward after a step gathers the stepped parameters, not those of the last probe.
    assert [rank["fsdp"][name]["loss_after"] for rank in ranks] == pytest.approx(halves, rel=1e-9)


def test_fsdp__resumes_bit_equal_through_distributed_checkpoint(ranks):
    for rank in ranks:
        assert same(rank["fsdp_resume"]["straight"], rank["fsdp_resume"]["resumed"])
        assert rank["fsdp_resume"]["alpha"][0] == rank["fsdp_resume"]["alpha"][1]


def test_fsdp__refuses_what_cannot_work(ranks):
    for rank in ranks:
        assert len(rank["fsdp_refusals"]) == 2
        assert "model must be given" in rank["fsdp_refusals"][0]
        assert "scope must be global" in rank["fsdp_refusals"][1]


@pytest.mark.parametrize("name", LATE_CASES)
@pytest.mark.parametrize("scope", ["global", "local"])
def test_wrapping__by_ddp_after_the_optimizer_was_built_is_found(ranks, scope, name):
    for rank in ranks:
        late, told = rank["late"][scope, name], rank["told"][scope]
        assert same(late["params"], told["params"])
        assert late["alphas"] == told["alphas"]
        assert same(late["buffers"], told["buffers"])
    full = [n for n in ranks[0]["late"][scope, name]["sizes"]["allreduce_"] if n >= NUM_PARAMS]
    assert len(full) == NUM_STEPS * (2 if scope == "global" else 1)


def test_wrapping__by_fully_shard_after_the_optimizer_was_built_is_found(ranks):
    problem = rooted_problem()
    expected = walk(
        problem,
        XSAM(problem.params, torch.optim.SGD, model=problem.model, alpha_every=1, **BASE),
        slice(None),
    )
    for rank in ranks:
        assert largest_difference(rank["fsdp_later"]["params"], expected["params"]) < 1e-9
        assert rank["fsdp_later"]["alphas"] == expected["alphas"]
        assert "reaches no parameter" in rank["fsdp_later"]["stale"]
        assert "attach(model)" in rank["fsdp_unknown"]


def test_late_block__of_another_rank_is_guarded_and_trained(ranks):
    first, second = (rank["late_block"] for rank in ranks)
    assert same(first["good"], second["good"])
    assert all((block < 3.0).all() for block in first["good"][1:])
    assert same(first["good"], first["after_nan"])
    assert same(second["good"], second["after_nan"])


def test_bucketed__splits_by_size_and_dtype_and_keeps_everything():
    tensors = [torch.zeros(n, dtype=d) for n, d in ((3, torch.float32), (2, torch.float64), (3, torch.float32))]
    buckets = bucketed(tensors, max_bytes=16)
    assert [len(b) for b in buckets] == [1, 1, 1]
    assert {id(t) for b in buckets for t in b} == {id(t) for t in tensors}
