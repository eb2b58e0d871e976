"""Records real probe curves: trains on scikit-learn's digits and, every few steps, looks at 201 alphas.

Run `python -m tests.xsam_core.record_curves` to write curves/NAME.json anew. Each file is the sequence of curves
that one training run met, so a search can be replayed with the alpha it would have had from the curve before.
"""

import json
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn

from xsam_core import XSAM

CURVES = Path(__file__).parent / "curves"
NUM_POINTS = 201
ALPHA_MAX = 2.0


def digits(noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    data = load_digits()
    inputs = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16.0
    targets = torch.tensor(data.target)
    redrawn = torch.rand(len(targets)) < noise
    return inputs, torch.where(redrawn, torch.randint(10, targets.shape), targets)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1, stride=2),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


def record(build, *, rho: float, ascent_steps: int, noise: float, every: int, num_curves: int) -> list[list[float]]:
    torch.manual_seed(0)
    inputs, targets = digits(noise)
    model = build()
    optimizer = XSAM(
        model.parameters(),
        torch.optim.SGD,
        rho=rho,
        ascent_steps=ascent_steps,
        alpha_max=ALPHA_MAX,
        alpha_delta=ALPHA_MAX / (NUM_POINTS - 1),
        alpha_every=every,
        model=model,
        lr=0.05,
        momentum=0.9,
    )
    curves = []
    while len(curves) < num_curves:
        batch = torch.randint(len(inputs), (64,))
        optimizer.step(lambda batch=batch: nn.functional.cross_entropy(model(inputs[batch]), targets[batch]))
        if optimizer.telemetry.curve is not None:
            curves.append([round(loss, 7) for loss in optimizer.telemetry.curve.losses])
    return curves


RUNS = {
    "digits_mlp": {"build": mlp, "rho": 0.1, "ascent_steps": 1, "noise": 0.4, "every": 28, "num_curves": 40},
    "digits_mlp_each_step": {"build": mlp, "rho": 0.05, "ascent_steps": 1, "noise": 0.0, "every": 1, "num_curves": 40},
    "digits_mlp_k3": {"build": mlp, "rho": 0.2, "ascent_steps": 3, "noise": 0.2, "every": 10, "num_curves": 40},
    "digits_cnn": {"build": cnn, "rho": 0.15, "ascent_steps": 1, "noise": 0.4, "every": 28, "num_curves": 40},
    "digits_cnn_clean": {"build": cnn, "rho": 0.05, "ascent_steps": 1, "noise": 0.0, "every": 5, "num_curves": 40},
}


def main() -> None:
    torch.set_num_threads(1)
    CURVES.mkdir(exist_ok=True)
    for name, options in RUNS.items():
        (CURVES / f"{name}.json").write_text(json.dumps(record(**options)))


if __name__ == "__main__":
    main()
