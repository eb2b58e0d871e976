"""TensorBoard's event files, beside the job's other files."""

import importlib
import json
from collections.abc import Mapping

from xsam.services.artifacts.store import TENSORBOARD
from xsam.workers.runner.trackers.sink import Ended, TrackedRun


class TensorBoardSink:
    """Writes one event file an attempt; TensorBoard reads a folder's files as one run.

    Args:
        run: the attempt.
    """

    def __init__(self, run: TrackedRun) -> None:
        # Late, in a thread of its own: a runner that waits for work needs none of this.
        module = importlib.import_module("tensorboardX")
        suffix = f".from-{run.first_step:09d}"  # two attempts within a second must not have one file
        self._writer = module.SummaryWriter(
            str(run.folder / TENSORBOARD), purge_step=run.first_step, filename_suffix=suffix
        )
        self._writer.add_text("job", f"    {json.dumps(run.spec, indent=2, sort_keys=True)}".replace("\n", "\n    "), 0)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Write values so that a reader sees them now."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def end(self, ended: Ended) -> None:
        """Close the file."""
        self._writer.close()
