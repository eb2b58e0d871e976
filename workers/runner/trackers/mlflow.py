"""MLflow: a run for each job, gone on with by later attempts."""

import importlib
import time
from collections.abc import Mapping
from typing import Any

from xsam.workers.runner.trackers.sink import Ended, TrackedRun, flat

_JOB_TAG = "xsam.job"
_MAX_PARAM_CHARS = 500
_STATUS = {Ended.FINISHED: "FINISHED", Ended.FAILED: "FAILED", Ended.STOPPED: "KILLED"}


class MlflowSink:
    """Tells an MLflow server, or a store of files, over its client.

    Args:
        run: the attempt.
        uri: of the server or the store.
        experiment: made if there is none of the name.
    """

    def __init__(self, run: TrackedRun, *, uri: str, experiment: str) -> None:
        module = importlib.import_module("mlflow")
        self._entities = importlib.import_module("mlflow.entities")
        self._client = module.MlflowClient(uri)
        self._run_id = self._run_of(run, self._experiment_id(experiment))

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Send values."""
        now_ms = int(time.time() * 1000)
        made = [self._entities.Metric(name, value, now_ms, step) for name, value in values.items()]
        self._client.log_batch(self._run_id, metrics=made)

    def end(self, ended: Ended) -> None:
        """Say how it ended."""
        self._client.set_terminated(self._run_id, _STATUS[ended])

    def _experiment_id(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        return str(self._client.create_experiment(name) if found is None else found.experiment_id)

    def _run_of(self, run: TrackedRun, experiment_id: str) -> str:
        found = self._client.search_runs([experiment_id], filter_string=f"tags.`{_JOB_TAG}` = '{run.job_id}'")
        if found:
            self._client.update_run(found[0].info.run_id, "RUNNING")
            return str(found[0].info.run_id)
        tags = {_JOB_TAG: run.job_id, "xsam.team": run.team, "mlflow.user": run.team}
        made: Any = self._client.create_run(experiment_id, tags=tags, run_name=run.name)
        params = [
            self._entities.Param(name, str(value)[:_MAX_PARAM_CHARS])
            for name, value in flat(run.spec).items()
            if value is not None
        ]
        self._client.log_batch(made.info.run_id, params=params)
        return str(made.info.run_id)
