"""The task: data, a loss of two parts, and macro F1."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from acme_defects.model import DefectNet
from xsam.sdk import collect, groups, mean


class Readings(Dataset):
    """Made-up sensor readings; yours would read a folder below `data_root`."""

    def __init__(self, number: int, seed: int, *, is_noisy: bool) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.randn(number, 12, generator=generator)
        self.kind = (self.x[:, :3] + 0.3 * self.x[:, 3:6]).argmax(1)
        self.severity = self.x[:, 6].abs()
        self.is_noisy = is_noisy

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        x = self.x[index]
        if self.is_noisy:  # augmentation may be random: a job that was interrupted draws the same again
            x = x + 0.05 * torch.randn(12)
        return {"x": x, "kind": self.kind[index], "severity": self.severity[index]}


class Defects:
    """`data_root` is the service's folder of datasets; the rest are the job's `task.options`."""

    best = "macro_f1:max"

    def __init__(self, data_root, dim: int = 24, gamma: float = 2.0) -> None:
        self.dim, self.gamma = dim, gamma

    def model(self) -> DefectNet:
        return DefectNet(self.dim)

    def train_data(self) -> Readings:
        return Readings(640, seed=1, is_noisy=True)

    def eval_data(self) -> Readings:
        return Readings(200, seed=2, is_noisy=False)

    def loss(self, model, batch):
        out = model(batch["x"])
        chance = F.cross_entropy(out["kind"], batch["kind"], reduction="none")
        focal = ((1 - torch.exp(-chance)) ** self.gamma * chance).mean()
        severity = F.smooth_l1_loss(out["severity"], batch["severity"])
        return focal + 0.3 * severity, {"focal": focal.detach(), "severity": severity.detach()}

    def evaluate(self, model, batch):
        out = model(batch["x"])
        return {
            "kind": collect(out["kind"].argmax(1), batch["kind"]),
            "severity_error": mean((out["severity"] - batch["severity"]).abs()),
        }

    def metrics(self, collected):
        found, true = collected["kind"]
        scores = []
        for kind in range(3):
            hits = ((found == kind) & (true == kind)).sum()
            scores.append(2 * hits / ((found == kind).sum() + (true == kind).sum()).clamp(min=1))
        return {"macro_f1": float(sum(scores) / 3)}

    def param_groups(self, model):
        return groups(model, no_perturb=["bias", "trunk.1"])  # LayerNorm and biases stay where they are
