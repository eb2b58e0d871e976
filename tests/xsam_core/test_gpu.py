"""What only a CUDA device shows: no waiting, peak memory, several devices' rules. Skipped where there is none."""

import pytest
import torch
from torch import nn

from xsam_core import SAM, XSAM, NonFiniteError

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")]


def rig(**options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 10)).cuda()
    inputs, targets = torch.randn(32, 64, device="cuda"), torch.randint(10, (32,), device="cuda")
    optimizer = XSAM(model.parameters(), torch.optim.SGD, model=model, lr=0.05, momentum=0.9, **options)
    return model, optimizer, Loss(model, inputs, targets)


class Loss:
    """A closure whose batch the tests can get at."""

    def __init__(self, model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        self.model, self.inputs, self.targets = model, inputs, targets

    def __call__(self) -> torch.Tensor:
        return nn.functional.cross_entropy(self.model(self.inputs), self.targets)


@pytest.mark.parametrize("options", [{}, {"max_grad_norm": 1.0}, {"fused": True}])
def test_step__without_search_never_waits_for_the_device(options):
    _, optimizer, closure = rig(**options)
    optimizer.step(closure)
    torch.cuda.set_sync_debug_mode("error")
    try:
        optimizer.step(closure)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert optimizer.telemetry.loss.is_cuda


def test_step__equals_the_cpu():
    model, optimizer, closure = rig(alpha=1.3)
    twin = nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 10))
    twin.load_state_dict(model.state_dict())
    optimizer.step(closure)
    cpu = XSAM(twin.parameters(), torch.optim.SGD, alpha=1.3, lr=0.05, momentum=0.9)
    cpu.step(lambda: nn.functional.cross_entropy(twin(closure.inputs.cpu()), closure.targets.cpu()))
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-3, atol=1e-5)


def test_step__nan_keeps_the_parameters_and_raises_one_step_later():
    model, optimizer, closure = rig()
    optimizer.step(closure)
    before = [p.detach().clone() for p in model.parameters()]
    optimizer.step(lambda: closure() * float("nan"))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    with pytest.raises(NonFiniteError):
        optimizer.step(closure)


def test_step__parameters_on_cpu_and_gpu_climb_together():
    left = nn.Parameter(torch.tensor([3.0]))
    right = nn.Parameter(torch.tensor([4.0], device="cuda"))
    SAM([left, right], torch.optim.SGD, rho=0.5, lr=1.0).step(
        lambda: (left.square().sum() + right.square().sum().cpu()) / 2
    )
    assert left.grad.item() == pytest.approx(3.3)
    assert right.grad.item() == pytest.approx(4.4)
