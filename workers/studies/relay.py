"""The trial of Ray Tune: fetches what its trial measures from the study's runner, so that Tune can judge and go on.

Tune keeps these actors and gives them one trial after the other. They train nothing: where a trial may run, and on
which GPUs, is the scheduler's decision and comes later than Tune's, so training happens in the rank processes that the
dispatcher lends. This module is light, since every relay is a process.
"""

from typing import Any

import ray
from ray import tune

TRIAL = "trial"


class Relay(tune.Trainable):
    """Takes the id of a trial as its configuration; `runner` comes with `tune.with_parameters`."""

    def setup(self, config: dict[str, Any], runner: Any = None) -> None:
        """Take the first trial."""
        self._runner = runner
        self._trial_id = config[TRIAL]

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another trial."""
        self._trial_id = new_config[TRIAL]
        return True

    def step(self) -> dict[str, Any]:
        """Wait for the trial's next epoch, or for its end."""
        result: dict[str, Any] = ray.get(self._runner.next_result.remote(self._trial_id))
        return result

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """Return nothing: a trial's checkpoints lie in the artifact store."""
        return {}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Load nothing."""
