"""What a job takes: counted from its specification, timed from what the service has measured before."""

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from xsam.services.jobs.models import KIND_STUDY, Job
from xsam.services.jobs.states import JobState
from xsam.services.specs.job import JobSpec
from xsam.services.specs.optimizer import XsamVariant

HISTORY_JOBS = 200
"""So many of the last jobs that succeeded are compared."""
_PACE_FIELDS = (
    *("task", "entrypoint", "model", "dataset", "batch_size", "precision"),
    *("recipe", "parameters", "speed", "resources"),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a whole run takes, from its specification alone; None where only files can tell."""

    grad_evals: int | None
    probe_forwards: int | None
    steps: int | None


def cost_of(job: JobSpec) -> Cost:
    """Return what a whole run of a job takes, when nothing stops it."""
    if job.num_train is None or job.plane is not None:
        return Cost(None, None, None)
    steps_per_epoch = job.num_train // job.batch_size
    steps = job.epochs * steps_per_epoch
    return Cost(steps * job.optimizer.grad_evals_per_step, _probes(job, steps), steps)


def measured_pace(session: Session, job: JobSpec) -> tuple[float | None, int]:
    """Return the median seconds per gradient evaluation of recent comparable runs, and how many there were."""
    paces = measured_paces(session).get(kind_of_work(job.model_dump(mode="json")), [])
    return (statistics.median(paces) if paces else None), len(paces)


def measured_paces(session: Session) -> dict[str, list[float]]:
    """Return the seconds per gradient evaluation of recent runs, by kind of work; one query, bounded, by an index."""
    query = (
        select(Job.spec, Job.summary)
        .where(Job.state == JobState.SUCCEEDED, Job.kind != KIND_STUDY)
        .order_by(Job.created_at.desc(), Job.id.desc())
        .limit(HISTORY_JOBS)
    )
    paces: defaultdict[str, list[float]] = defaultdict(list)
    for spec, summary in session.execute(query):
        if summary and summary["grad_evals"]:
            paces[kind_of_work(spec)].append(summary["train_s"] / summary["grad_evals"])
    return dict(paces)


def kind_of_work(spec: Mapping[str, Any]) -> str:
    """Return what runs of one pace have in common: the same model, data, batch and resources."""
    return json.dumps([spec.get(name) for name in _PACE_FIELDS], sort_keys=True)


def _probes(job: JobSpec, steps: int) -> int:
    """Return the probe forwards at most: an adaptive search takes fewer, one near an epoch's end has fewer batches."""
    optimizer = job.optimizer
    if not isinstance(optimizer, XsamVariant) or optimizer.alpha is not None:
        return 0
    searches = job.epochs if optimizer.alpha_every == "epoch" else math.ceil(steps / optimizer.alpha_every)
    steps_per_epoch = max(1, steps // job.epochs)
    return searches * optimizer.grid_probes() * min(optimizer.alpha_batches, steps_per_epoch)
