"""Baseline: Ray's guide for tuning with Ray Train, a TorchTrainer inside each trial of Tune, two trials at a time.

Reads jobs from standard input and prints the seconds from `fit` to the end of the last trial.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from tests.bench.bare_loop import NoWish
from xsam.services.specs.job import JobSpec
from xsam.workers.messages import RankContext
from xsam.workers.training.loop import run_training
from xsam.workers.training.telemetry import SilentTelemetry


def train_loop_per_worker(config: dict[str, Any]) -> None:
    """Train one trial and report its accuracy."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        context = RankContext(0, 1, "cpu", None, Path(folder) / "job" / "checkpoints")
        outcome = run_training(JobSpec.model_validate(config["job"]), context, SilentTelemetry(), NoWish())
    ray.train.report({"accuracy": outcome.summary.best_accuracy})


def trial(config: dict[str, Any]) -> None:
    """Drive one trial's training with a worker group of its own."""
    trainer = TorchTrainer(
        train_loop_per_worker,
        train_loop_config={"job": config["job"]},
        scaling_config=ScalingConfig(num_workers=1),
        run_config=RunConfig(name=f"train-{config['number']}", storage_path=config["folder"]),
    )
    trainer.fit()
    tune.report({"is_done": 1})


def main() -> None:
    """Start Ray, tune, print."""
    jobs = json.load(sys.stdin)
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        space = tune.grid_search([{"job": job, "number": n, "folder": folder} for n, job in enumerate(jobs)])
        began_at = time.perf_counter()
        tune.Tuner(
            tune.with_parameters(_unwrapped),
            param_space={"one": space},
            tune_config=tune.TuneConfig(max_concurrent_trials=2),
            run_config=tune.RunConfig(storage_path=folder, name="tune", verbose=0),
        ).fit()
        print(json.dumps({"total_s": time.perf_counter() - began_at}))
    ray.shutdown()


def _unwrapped(config: dict[str, Any]) -> None:
    trial(config["one"])


if __name__ == "__main__":
    main()
