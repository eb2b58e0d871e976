"""Weights & Biases: a run for each job; offline ones lie beside the job's other files until somebody syncs them."""

import importlib
from collections.abc import Mapping
from typing import Literal

from xsam.workers.runner.trackers.sink import Ended, TrackedRun


class WandbSink:
    """Tells W&B, or writes what `wandb sync` sends later.

    Args:
        run: the attempt.
        mode: whether it is sent at once.
        project: where the run is shown.
    """

    def __init__(self, run: TrackedRun, *, mode: Literal["offline", "online"], project: str) -> None:
        module = importlib.import_module("wandb")
        quiet = module.Settings(
            silent=True, console="off", disable_git=True, disable_code=True, x_disable_stats=True, x_disable_meta=True
        )
        run.folder.mkdir(parents=True, exist_ok=True)
        self._run = module.init(
            mode=mode,
            dir=str(run.folder),
            project=project,
            id=run.job_id,
            name=run.name,
            group=run.team,
            config=dict(run.spec),
            resume="allow" if mode == "online" else None,
            reinit="create_new",  # a study's runner has several at once
            settings=quiet,
        )
        self._run.define_metric("*", step_metric="step")

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log values; by a step of ours, since W&B's own may not go back as an attempt does."""
        self._run.log({**values, "step": step})

    def end(self, ended: Ended) -> None:
        """Finish the run."""
        self._run.finish(exit_code=1 if ended is Ended.FAILED else 0)
