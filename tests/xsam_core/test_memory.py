"""How many copies of the model a step holds beyond what the base optimizer's own step does."""

import pytest
import torch
from torch import nn

from tests.xsam_core.live_memory import LiveMemory
from xsam_core import ASAM, GSAM, SAM, WSAM, XSAM, SGDPlus

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


def test_step__leaves_no_copy_behind():
    model, inputs = build_model(), torch.ones(1, WIDTH)
    optimizer = XSAM(model.parameters(), torch.optim.SGD, model=model, lr=1e-3)
    optimizer.step(lambda: model(inputs).square().mean())
    model.zero_grad()
    with LiveMemory() as memory:
        optimizer.step(lambda: model(inputs).square().mean(), search_alpha=True)
        model_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
        # The gradients, and nothing else of that size.
        assert memory.live_bytes < 1.02 * model_bytes
