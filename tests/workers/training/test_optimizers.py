from types import SimpleNamespace

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from xsam.services.specs.job import JobSpec
from xsam.services.specs.optimizer import BASE_OPTIMIZERS, OPTIMIZERS, Optimizer
from xsam.workers.training.optimizers import BASE_CLASSES, build_optimizer, is_search_step, read_alpha
from xsam.workers.training.stepping import Stepper
from xsam_core import ASAM, GSAM, SAM, WSAM, XSAM

GENERATOR = torch.Generator().manual_seed(0)
INPUTS = torch.randn(32, 4, generator=GENERATOR)
TARGETS = (INPUTS @ torch.randn(4, 3, generator=GENERATOR)).argmax(1)


def parse(spec: dict[str, object]) -> Optimizer:
    return TypeAdapter(Optimizer).validate_python(spec)


def train(spec: Optimizer, num_steps: int = 30) -> tuple[torch.optim.Optimizer, list[float]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    optimizer = build_optimizer(spec, model)
    task = SimpleNamespace(loss=lambda model, batch: (nn.functional.cross_entropy(model(batch[0]), batch[1]), {}))
    parts = SimpleNamespace(task=task, model=model, wrapped=model, optimizer=optimizer, scaler=None, average=None)
    stepper = Stepper(JobSpec(), parts, "cpu")
    losses = []
    for step in range(num_steps):
        search = is_search_step(spec, step=step, step_in_epoch=step % 10)
        losses.append(float(stepper.step((INPUTS, TARGETS), number=step, search_alpha=search).loss))
    return optimizer, losses


def test_base_classes__are_those_a_job_may_name() -> None:
    assert BASE_CLASSES.keys() == BASE_OPTIMIZERS.keys()


@pytest.mark.parametrize("base", BASE_OPTIMIZERS)
@pytest.mark.parametrize("variant", OPTIMIZERS)
def test_optimizer__lowers_the_loss(variant: str, base: str) -> None:
    _, losses = train(parse({"variant": variant, "base": {"name": base}}))
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("base", BASE_OPTIMIZERS)
def test_plain_variant__is_torchs_optimizer_with_the_options_given(base: str) -> None:
    spec = parse({"variant": "sgd", "base": {"name": base, "lr": 0.003, "weight_decay": 0.1}})
    optimizer = build_optimizer(spec, nn.Linear(2, 2))
    assert type(optimizer) is BASE_CLASSES[base]
    group = optimizer.param_groups[0]
    for name, value in spec.base.options().items():
        assert group[name] == value


def test_sharpness_aware__takes_every_option() -> None:
    options = {"rho": 0.3, "ascent_steps": 3, "adaptive": True, "scope": "local", "rho_warmup_steps": 40}
    options["base"] = {"name": "adamw", "lr": 0.02}
    sam = build_optimizer(parse({"variant": "sam", **options}), nn.Linear(2, 2))
    xsam = build_optimizer(parse({"variant": "xsam", **options, "alpha_max": 1.5}), nn.Linear(2, 2))
    assert type(sam) is SAM
    assert type(xsam) is XSAM
    for optimizer in (sam, xsam):
        assert optimizer.ascent_steps == 3
        group = optimizer.param_groups[0]
        assert (group["rho"], group["adaptive"], group["lr"], group["weight_decay"]) == (0.3, True, 0.02, 0.01)
        assert group["rho_warmup_steps"] == 40
    assert xsam.param_groups[0]["rho_max"] == 0.6


@pytest.mark.parametrize(
    ("spec", "kind", "name", "value"),
    [
        ({"variant": "asam"}, ASAM, "adaptive_in_group", True),
        ({"variant": "wsam", "gamma": 0.7}, WSAM, "gamma", 0.7),
        ({"variant": "wsam", "decouple": True}, WSAM, "decouple", True),
        ({"variant": "gsam", "gap_weight": 0.2}, GSAM, "gap_weight", 0.2),
        ({"variant": "gsam", "rho_min": 0.01}, GSAM, "rho_min", 0.01),
    ],
)
def test_other_members__take_their_own_option(spec: dict[str, object], kind: type, name: str, value: object) -> None:
    optimizer = build_optimizer(parse(spec), nn.Linear(2, 2))
    assert type(optimizer) is kind
    found = optimizer.param_groups[0]["adaptive"] if name == "adaptive_in_group" else getattr(optimizer, name)
    assert found == value


def test_sgd_step__is_torchs_own_bit_for_bit() -> None:
    _, losses = train(parse({"variant": "sgd"}), num_steps=5)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    reference = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for loss in losses:
        expected = nn.functional.cross_entropy(model(INPUTS), TARGETS)
        assert expected.item() == loss
        reference.zero_grad()
        expected.backward()
        reference.step()


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"variant": "xsam"}, [0, 10, 20]),
        ({"variant": "xsam", "alpha_every": 7}, [0, 7, 14, 21]),
        ({"variant": "xsam", "alpha": 0.6}, []),
        ({"variant": "sam"}, []),
        ({"variant": "sgd"}, []),
    ],
)
def test_search_steps__follow_from_the_position(spec: dict[str, object], expected: list[int]) -> None:
    parsed = parse(spec)
    assert [s for s in range(25) if is_search_step(parsed, step=s, step_in_epoch=s % 10)] == expected


@pytest.mark.parametrize("search", ["grid", "adaptive"])
def test_read_alpha__returns_the_curve_and_its_maximum(search: str) -> None:
    optimizer, _ = train(parse({"variant": "xsam", "alpha_search": search}), num_steps=11)
    record = read_alpha(optimizer, epoch=2, step=11)
    assert (record.epoch, record.step) == (2, 11)
    assert record.alpha == optimizer.alpha
    assert 0 <= record.angle_rad <= torch.pi
    assert list(record.alphas) == sorted(record.alphas)
    assert record.alpha == pytest.approx(record.alphas[record.losses.index(max(record.losses))], abs=0.1)
    if search == "grid":
        assert len(record.alphas) == 21


def test_read_alpha__without_a_search_says_so() -> None:
    optimizer, _ = train(parse({"variant": "xsam", "alpha": 0.5}), num_steps=1)
    with pytest.raises(RuntimeError, match="step 4 was to search"):
        read_alpha(optimizer, epoch=1, step=4)
