"""How many copies of the model a step holds beyond what the base optimizer's own step does."""

import pytest
import torch
from torch import nn

from tests.xsam_core.live_memory import LiveMemory
from xsam_core import ASAM, GSAM, SAM, WSAM, XSAM, SGDPlus
from xsam_core.parameters import OriginMemory

WIDTH = 256


def build_model() -> nn.Module:
    """Many parameters for one tiny batch, so that activations do not matter."""
    return nn.Sequential(*[nn.Linear(WIDTH, WIDTH) for _ in range(24)])


def peak_bytes(model: nn.Module, step) -> int:
    """Return the peak of a second step, with all that the first one left: momentum, kept memory."""
    with LiveMemory() as memory:
        step()
        model.zero_grad()
        memory.restart_peak()
        step()
    return memory.peak_bytes


def extra_copies(variant, *, search: bool = False, **options) -> float:
    model, inputs = build_model(), torch.ones(1, WIDTH)

    def closure():
        return model(inputs).square().mean()

    optimizer = variant(model.parameters(), torch.optim.SGD, model=model, lr=1e-3, momentum=0.9, **options)
    plain = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def plain_step():
        plain.zero_grad()
        closure().backward()
        plain.step()

    ours = peak_bytes(model, lambda: optimizer.step(closure, search_alpha=search))
    base = peak_bytes(model, plain_step)
    model_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    return (ours - base) / model_bytes


CASES = [
    (SAM, {}, 1.05),
    (SAM, {"ascent_steps": 3}, 1.05),
    (SGDPlus, {}, 1.05),
    (XSAM, {"alpha": 1.4}, 1.05),
    (XSAM, {"ascent_steps": 3}, 1.05),
    (XSAM, {"max_grad_norm": 0.1}, 1.05),
    (XSAM, {"nonfinite": "deferred"}, 1.05),
    (XSAM, {"search": True}, 2.05),
    (XSAM, {"search": True, "alpha_search": "adaptive"}, 2.05),
    # One tensor's worth of |w| at a time on top.
    (ASAM, {}, 1.10),
    # These mix in g_0, which has to be kept.
    (WSAM, {}, 2.05),
    (GSAM, {}, 2.05),
]


@pytest.mark.parametrize(
    ("variant", "options", "limit"), CASES, ids=lambda v: v.__name__ if isinstance(v, type) else str(v)
)
def test_step__extra_model_copies(variant, options, limit):
    copies = extra_copies(variant, **options)
    assert limit - 0.15 <= copies <= limit


def test_step__keeps_the_memory_of_theta_0_on_the_cpu_and_nothing_else():
    model, inputs = build_model(), torch.ones(1, WIDTH)
    optimizer = XSAM(model.parameters(), torch.optim.SGD, model=model, lr=1e-3)
    model_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    with LiveMemory() as memory:
        for _ in range(3):
            optimizer.step(lambda: model(inputs).square().mean(), search_alpha=True)
            # The gradients and the kept copy, and nothing else of that size.
            assert 1.98 * model_bytes < memory.live_bytes < 2.02 * model_bytes


def test_origin_memory__is_the_same_each_time_until_the_parameter_changes_its_form():
    memory, value = OriginMemory(), torch.zeros(4)
    first = memory.like([value], [value])[0]
    assert memory.like([value], [value])[0] is first
    value.data = torch.zeros(4, dtype=torch.float64)
    assert memory.like([value], [value])[0].dtype is torch.float64
