"""Baseline: the trials that standard input describes, one after another in one single-threaded process.

The same training loop without a service around it: no queue, no rows, no checkpoints but the last one of each trial.
Prints the seconds of the whole process and, for each trial, those of its training.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

STARTED_AT = time.perf_counter()

import torch  # noqa: E402 - the clock starts before the imports

from xsam.services.specs.job import JobSpec  # noqa: E402
from xsam.workers.messages import RankContext  # noqa: E402
from xsam.workers.training.loop import run_training  # noqa: E402
from xsam.workers.training.telemetry import SilentTelemetry  # noqa: E402


class NoWish:
    """Nobody wants anything."""

    def stop_reason(self) -> None:
        """Return nothing."""

    def may_publish(self) -> bool:
        """Return that checkpoints may be written."""
        return True


def main() -> None:
    """Train all, print JSON."""
    torch.set_num_threads(1)
    seconds = []
    for document in json.load(sys.stdin):
        began_at = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            context = RankContext(0, 1, "cpu", None, Path(folder) / "job" / "checkpoints")
            run_training(JobSpec.model_validate(document), context, SilentTelemetry(), NoWish())
        seconds.append(time.perf_counter() - began_at)
    print(json.dumps({"total_s": time.perf_counter() - STARTED_AT, "trial_s": seconds}))


if __name__ == "__main__":
    main()
