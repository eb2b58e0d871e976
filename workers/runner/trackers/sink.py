"""What a tracker's sink is told of a run, and the names under which all of them show it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from xsam.services.metrics.records import AlphaRecord, EpochRecord


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """An attempt as a tracker knows it.

    Args:
        job_id: names the run; later attempts go on with it.
        name: for people.
        team: whose it is.
        spec: the job's specification as plain values.
        folder: of the job in the artifact store.
        first_step: of this attempt, from 1; what an earlier one has told of it and beyond no longer counts.
    """

    job_id: str
    name: str
    team: str
    spec: Mapping[str, Any]
    folder: Path
    first_step: int


class Ended(StrEnum):
    """How an attempt ended."""

    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"
    """Cancelled, paused or preempted: it may go on."""


class Sink(Protocol):
    """One tracker of one attempt. Called from one thread; whatever it raises is logged, and it is called no more."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Take values by name, at a training step."""

    def end(self, ended: Ended) -> None:
        """Write everything that is left."""


def of_epoch(record: EpochRecord) -> dict[str, float]:
    """Return what an epoch's row says, by the names that trackers show."""
    known = {
        "loss/train": record.train_loss,
        "loss/eval": record.eval_loss,
        "accuracy/train": record.train_accuracy,
        "accuracy/eval": record.eval_accuracy,
        "lr": record.lr,
        "epoch": float(record.epoch),
        "samples_per_s": record.samples_per_s,
        "grad_evals": float(record.grad_evals),
        **record.metrics,
    }
    return {name: value for name, value in known.items() if value is not None}


def of_alpha(record: AlphaRecord) -> dict[str, float]:
    """Return what a search for alpha* has found, by the names that trackers show."""
    return {"alpha/alpha": record.alpha, "alpha/angle_rad": record.angle_rad}


def flat(spec: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a specification with dotted names, for trackers that know no nesting."""
    found: dict[str, Any] = {}
    for name, value in spec.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found
