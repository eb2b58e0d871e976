"""Baseline: the same training with a TorchTrainer of two workers and Ray's default settings, as Ray's guide has it.

Prints when `fit` was called and when the first step had been taken.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import ray
import torch
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, prepare_model
from sklearn.datasets import load_digits
from torch import nn

from xsam_core import XSAM


def train_loop_per_worker(config: dict[str, Any]) -> None:
    """Train one step of XSAM on the digits and leave its time in a file."""
    torch.set_num_threads(1)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(digits.target)
    layers = [nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    model = prepare_model(nn.Sequential(*layers, nn.Linear(16, 10)))
    optimizer = XSAM(model.parameters(), torch.optim.SGD, rho=0.05, lr=0.05, momentum=0.9, model=model)
    batch = torch.randperm(len(images))[:32]
    optimizer.step(lambda: nn.functional.cross_entropy(model(images[batch]), labels[batch]), search_alpha=True)
    if ray.train.get_context().get_world_rank() == 0:
        Path(config["time_file"]).write_text(str(time.time()))


def main() -> None:
    """Start Ray, fit, print."""
    ray.init(num_cpus=4, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        time_file = Path(folder) / "time"
        trainer = TorchTrainer(
            train_loop_per_worker,
            train_loop_config={"time_file": str(time_file)},
            scaling_config=ScalingConfig(num_workers=2),
            run_config=RunConfig(name="plain", storage_path=folder),
        )
        fit_at = time.time()
        trainer.fit()
        print(f"fit_at {fit_at}")
        print(f"first_step_at {float(time_file.read_text())}", flush=True)


if __name__ == "__main__":
    main()
