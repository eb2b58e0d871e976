"""Baseline: the same training as a plain script with one process. Prints the time of the end of its first step."""

import time

import torch
from sklearn.datasets import load_digits
from torch import nn

from xsam_core import XSAM


def main() -> None:
    """Train one step of XSAM on the digits."""
    torch.set_num_threads(1)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(digits.target)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )
    optimizer = XSAM(model.parameters(), torch.optim.SGD, rho=0.05, lr=0.05, momentum=0.9, model=model)
    batch = torch.randperm(len(images))[:64]
    optimizer.step(lambda: nn.functional.cross_entropy(model(images[batch]), labels[batch]), search_alpha=True)
    print(f"first_step_at {time.time()}", flush=True)


if __name__ == "__main__":
    main()
