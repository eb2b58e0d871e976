"""The models, batches and the ideal step that the optimizer benchmarks compare with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer, resnet18

from xsam_core import SAM, XSAM

BASE_OPTIONS = {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-3}


def cifar_resnet18() -> nn.Module:
    """ResNet-18 with the 3x3 stem that 32x32 images take."""
    model = resnet18(num_classes=100)
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model


def vit_tiny() -> nn.Module:
    """ViT-Ti/4 for 32x32 images: 12 layers, 3 heads, width 192."""
    return VisionTransformer(32, 4, 12, 3, 192, 768, num_classes=100)


def mlp() -> nn.Module:
    """The 784-256-256-10 perceptron."""
    return nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))


@dataclass(frozen=True)
class Case:
    """One line of the step-time table."""

    name: str
    build: Callable[[], nn.Module]
    input_shape: tuple[int, ...]
    num_classes: int
    target: float
    rounds: int


IMAGE = (3, 32, 32)
CASES = (
    Case("ResNet-18 (CIFAR stem), batch 32", cifar_resnet18, (32, *IMAGE), 100, 1.03, 11),
    Case("ResNet-18 (CIFAR stem), batch 8", cifar_resnet18, (8, *IMAGE), 100, 1.06, 25),
    Case("ViT-tiny, batch 16", vit_tiny, (16, *IMAGE), 100, 1.05, 15),
    Case("MLP 784-256-256-10, batch 64", mlp, (64, 784), 10, 1.30, 400),
)


class Rig:
    """A model with a fixed batch, and the steps that are timed against each other."""

    def __init__(self, case: Case, device: str = "cpu", autocast: torch.dtype | None = None) -> None:
        torch.manual_seed(0)
        self.device = device
        self.model = case.build().to(device)
        self.inputs = torch.randn(case.input_shape, device=device)
        self.targets = torch.randint(case.num_classes, case.input_shape[:1], device=device)
        self.autocast = autocast
        self.base = torch.optim.SGD(self.model.parameters(), **BASE_OPTIONS)

    def loss(self) -> Tensor:
        """Forward pass and loss, under autocast if the rig has one."""
        with torch.autocast(self.device, self.autocast, enabled=self.autocast is not None):
            return nn.functional.cross_entropy(self.model(self.inputs), self.targets)

    def ideal_step(self, num_passes: int = 2) -> None:
        """Take `num_passes` forward-backward passes and one base step, with nothing else."""
        for _ in range(num_passes):
            self.base.zero_grad(set_to_none=True)
            self.loss().backward()
        self.base.step()
        # The optimizers that take their turn on this model refuse gradients that are not theirs.
        self.base.zero_grad(set_to_none=True)

    def textbook_step(self, rho: float = 0.05) -> None:
        """Take a step of SAM as it is mostly written: one loop over parameters, a fresh copy of each, no checks."""
        params = list(self.model.parameters())
        self.base.zero_grad(set_to_none=True)
        self.loss().backward()
        with torch.no_grad():
            norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(p.grad) for p in params]))
            scale = rho / (norm + 1e-12)
            origin = [p.clone() for p in params]
            for param in params:
                param.add_(param.grad * scale)
        self.base.zero_grad(set_to_none=True)
        self.loss().backward()
        with torch.no_grad():
            for param, value in zip(params, origin, strict=True):
                param.copy_(value)
        self.base.step()
        self.base.zero_grad(set_to_none=True)

    def sam(self, **options: object) -> SAM:
        """Build SAM on this rig's model."""
        return SAM(self.model.parameters(), torch.optim.SGD, rho=0.05, model=self.model, **BASE_OPTIONS, **options)

    def xsam(self, **options: object) -> XSAM:
        """Build XSAM on this rig's model."""
        return XSAM(self.model.parameters(), torch.optim.SGD, rho=0.05, model=self.model, **BASE_OPTIONS, **options)
