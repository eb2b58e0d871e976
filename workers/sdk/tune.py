"""Ray Tune scripts whose trials are jobs of the service: `tune.Tuner(service_trainable(url, base_spec), ...)`.

A script of somebody's own drives the search here, in its own process and on its own Ray; what trains is the service.
Neither Ray nor the client is loaded before it is used: whoever imports `xsam.sdk` to train needs only torch.
"""

import copy
import importlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_LOOK_INTERVAL_S = 0.5
_ENDED = ("succeeded", "failed", "cancelled")


def service_trainable(url: str, base_spec: Mapping[str, Any], *, beside: Path | None = None) -> type:
    """Return a class for `ray.tune.Tuner`: each of its trials is a job of the service at `url`.

    Each epoch is one result, live, with `loss`, `accuracy`, `train_loss` and the task's own metrics by name. A trial
    that Tune stops is cancelled, and its checkpoint kept; one that Tune resumes goes on from it. The job is found again
    by the trial's id, so a restored Tuner goes on where its jobs are. Tune's own checkpoints hold the place alone,
    so schedulers that copy weights between trials (PBT) are refused.

    Args:
        url: of the service. The token is that of XSAM_TOKEN, or what `xsam login` remembers, on each node.
        base_spec: the job, as in a file; `code` and `requirements` are sent now. `param_space` changes its fields by
            dotted names: `{"optimizer.rho": tune.loguniform(0.01, 0.3)}`.
        beside: what folders in the specification are relative to; by default the working folder.

    Raises:
        ApiError: the service refuses the code.
    """
    with _client(url) as client:
        locked, _ = client.requirements.resolve(base_spec, beside or Path())
        spec, _ = client.bundles.resolve(locked, beside or Path())
    tune: Any = importlib.import_module("ray.tune")
    base: Any = tune.Trainable

    class ServiceTrainable(base):  # type: ignore[misc, unused-ignore]
        """A trial as Tune sees it."""

        def setup(self, config: dict[str, Any]) -> None:
            """Submit the trial's job, or find it."""
            self._client = _client(url)
            self._trial = ServiceTrial(self._client, spec, config, key=f"tune-{self.trial_id}")

        def step(self) -> dict[str, Any]:
            """Return the next epoch."""
            return self._trial.next_epoch()

        def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
            """Return the place: the service has the weights."""
            return self._trial.place()

        def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
            """Go on from a place."""
            if checkpoint:
                self._trial.go_on(checkpoint)

        def cleanup(self) -> None:
            """Cancel the job, unless it has ended."""
            self._trial.stop()
            self._client.close()

        @classmethod
        def default_resource_request(cls, config: dict[str, Any]) -> Any:
            """Return next to nothing: the job has its resources from the service."""
            return tune.PlacementGroupFactory([{"CPU": 0.001}])

    return ServiceTrainable


class ServiceTrial:
    """One trial's job.

    Args:
        client: of the service.
        base_spec: the job.
        config: changes its fields, by dotted names.
        key: names the trial; the same key is the same job.

    Raises:
        ApiError: the service refuses the job.
    """

    def __init__(self, client: Any, base_spec: Mapping[str, Any], config: Mapping[str, Any], *, key: str) -> None:
        self._client = client
        job = client.submit(applied(base_spec, config), idempotency_key=key)
        if job.wish == "cancel":
            job = client.wait(job.id)
        if job.state in ("cancelled", "failed"):  # Tune had stopped it, and wants it to go on
            client.retry(job.id)
        self.job_id: str = job.id
        self._num_epochs = int(job.spec.epochs)
        self._epoch = 0
        self._last: dict[str, Any] = {}

    def next_epoch(self) -> dict[str, Any]:
        """Return the next epoch's metrics, once there are some; `done` says that it was the last.

        Raises:
            RuntimeError: the job has failed, or somebody has cancelled it.
        """
        while True:
            job = self._client.get(self.job_id)
            rows = self._client.metrics(self.job_id, after=self._epoch)
            if rows:
                self._epoch = rows[0].epoch
                is_last = job.state == "succeeded" and len(rows) == 1
                self._last = {**_values(rows[0]), "job_id": self.job_id, "done": is_last}
                return self._last
            if job.state == "succeeded":
                return {**self._last, "done": True}
            if job.state in _ENDED:
                why = "by somebody else" if job.failure is None else job.failure.message
                raise RuntimeError(f"job {self.job_id} {job.state}: {why}")
            time.sleep(_LOOK_INTERVAL_S)

    def place(self) -> dict[str, Any]:
        """Return where the trial is."""
        return {"job_id": self.job_id, "epoch": self._epoch}

    def go_on(self, place: Mapping[str, Any]) -> None:
        """Go on from a place of this trial.

        Raises:
            RuntimeError: it is another trial's.
        """
        if place["job_id"] != self.job_id:
            raise RuntimeError(
                f"this trial is job {self.job_id}, its checkpoint job {place['job_id']}'s: the service copies no "
                "weights between jobs, so schedulers that do (PBT, PB2) can't be used; ASHA and HyperBand can"
            )
        self._epoch = int(place["epoch"])

    def stop(self) -> None:
        """Cancel the job, unless it has ended; its checkpoint stays."""
        if self._client.get(self.job_id).state not in _ENDED:
            self._client.cancel(self.job_id)


def applied(base_spec: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a specification with fields changed by dotted names; nested ones are read as such names.

    Raises:
        ValueError: a name leads through a field that has no fields.
    """
    spec: dict[str, Any] = copy.deepcopy(dict(base_spec))
    for name, value in config.items():
        if isinstance(value, Mapping):
            spec = applied(spec, {f"{name}.{inner}": one for inner, one in value.items()})
            continue
        *parents, last = name.split(".")
        part: Any = spec
        for parent in parents:
            part = part.setdefault(parent, {})
            if not isinstance(part, dict):
                raise ValueError(f"param_space names {name!r}, but {parent} is {part!r}, which has no fields")
        part[last] = value.item() if hasattr(value, "item") else value  # numpy's numbers are none of JSON's
    return spec


def _values(row: Any) -> dict[str, Any]:
    named = {
        "epoch": row.epoch,
        "loss": row.eval_loss,
        "accuracy": row.eval_accuracy,
        "train_loss": row.train_loss,
        "grad_evals": row.grad_evals,
        **row.metrics,
    }
    return {name: value for name, value in named.items() if value is not None}


def _client(url: str) -> Any:
    token = os.environ.get("XSAM_TOKEN") or importlib.import_module("xsam.api.cli.credentials").load().tokens.get(url)
    return importlib.import_module("xsam.api.client").Client(url, token=token)
