"""A project as somebody has it, to be written into a folder of its own: packages `api` and `utils`, one dependency."""

from pathlib import Path

from tests.support.wheels import wheel

FILES = {
    "api/__init__.py": "",
    "api/task.py": '''
import torch
from torch import nn
from utils.losses import both
from xsam.sdk import collect, ratio


def rows(number, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(number, 8, generator=generator)
    return x, (x[:, 0] > 0).long(), x[:, 1:3].sum(1) + 0.1 * torch.randn(number, generator=generator)


class TwoHeads(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, dim), nn.ReLU(), nn.Dropout(0.1))
        self.kind, self.size = nn.Linear(dim, 2), nn.Linear(dim, 1)

    def forward(self, x):
        hidden = self.body(x)
        return self.kind(hidden), self.size(hidden)[:, 0]


class Project:
    """Two labels for each example, and a loss of its own over both."""

    best = "f1:max"

    def __init__(self, dim=16, weight=0.3):
        self.dim, self.weight = dim, weight

    def model(self):
        return TwoHeads(self.dim)

    def train_data(self):
        return rows(240, 1)

    def eval_data(self):
        return rows(60, 2)

    def loss(self, model, batch):
        x, kind, size = batch
        return both(model(x), kind, size, self.weight)

    def evaluate(self, model, batch):
        x, kind, size = batch
        found, length = model(x)
        return {"kind": collect(found.argmax(1), kind), "error": ratio((length - size).abs().sum(), len(size))}

    def metrics(self, collected):
        found, right = collected["kind"]
        hits = (found * right).sum().item()
        return {"f1": 2 * hits / max(1, (found.sum() + right.sum()).item())}
''',
    "utils/__init__.py": "",
    "utils/losses.py": """
import torch.nn.functional as F
from tinyloss import scaled


def both(output, kind, size, weight):
    logits, length = output
    return F.cross_entropy(logits, kind) + scaled(F.smooth_l1_loss(length, size), weight)
""",
    "requirements.txt": "tinyloss>=1.0\nnumpy\n",
    ".env": "TOKEN=never-to-be-sent\n",
    "job.yaml": """
code: "."
requirements: requirements.txt
task: {target: "api.task:Project", options: {dim: 16}}
optimizer: {variant: xsam, rho: 0.05}
batch_size: 12
epochs: 25
checkpoint: {every_steps: 7}
resources: {num_workers: 2}
""",
}


def write(folder: Path, wheels: Path) -> Path:
    """Write the project, and the package that it needs as a wheel; return the job's file."""
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    wheel(wheels, "tinyloss", files={"tinyloss.py": "def scaled(loss, weight):\n    return weight * loss\n"})
    return folder / "job.yaml"
