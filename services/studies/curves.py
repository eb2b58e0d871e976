"""The objective of trials epoch by epoch, over what it has cost."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from xsam.services.jobs.models import Job
from xsam.services.jobs.states import JobState
from xsam.services.metrics import service as metrics
from xsam.services.metrics.models import EpochMetric
from xsam.services.schemas import Read
from xsam.services.studies import service
from xsam.services.studies.models import Trial
from xsam.services.studies.service import spec_of


class CurvePoint(NamedTuple):
    """One epoch of a trial."""

    grad_evals: int
    """Forward-backward passes since the start of the run."""
    value: float
    """What the objective's metric was."""


class CurveRead(Read):
    """One trial's epochs."""

    id: str
    """The trial's id as a job."""
    number: int
    arm: str
    phase: str
    config: int
    """Trials of one configuration differ in their seeds only."""
    seed: int
    state: JobState
    value: float | None
    """The objective, once the trial has ended."""
    is_stopped_early: bool
    points: list[CurvePoint]


class CurvesRead(Read):
    """Curves of a study's trials: those of the best configuration first, then of those that have no value yet."""

    metric: str
    items: list[CurveRead]


def read_curves(
    session: Session,
    study_id: str,
    *,
    top: int = 20,
    arm: str | None = None,
    phase: str | None = None,
    points: int | None = None,
) -> CurvesRead:
    """Return the curves of the best configurations, and of those that run.

    Args:
        session: open for reading.
        study_id: the study.
        top: at most so many configurations, each with all of its trials.
        arm: of this arm only.
        phase: of this phase only.
        points: about so many epochs of each trial, evenly spaced, the last one always; None for all.

    Raises:
        NotFoundError: no such study.
    """
    job, _ = service.get(session, study_id)
    objective = spec_of(job).objective
    query = (
        select(Trial, Job.state).join(Job, Job.id == Trial.job_id).where(Trial.study_id == study_id, Job.attempt > 0)
    )
    for column, wanted in ((Trial.arm, arm), (Trial.phase, phase)):
        if wanted is not None:
            query = query.where(column == wanted)
    rows = _best_first(session.execute(query.order_by(Trial.number)), objective.mode, top)
    measured = _measured(session, objective.metric, [trial.job_id for trial, _ in rows])
    items = [
        CurveRead(
            id=trial.job_id,
            number=trial.number,
            arm=trial.arm,
            phase=trial.phase,
            config=trial.config,
            seed=trial.seed,
            state=JobState(state),
            value=trial.value,
            is_stopped_early=trial.is_stopped_early,
            points=_spaced(measured[trial.job_id], points),
        )
        for trial, state in rows
    ]
    return CurvesRead(metric=objective.metric, items=items)


def _best_first(rows: Iterable[Any], mode: str, top: int) -> list[tuple[Trial, str]]:
    configs: defaultdict[tuple[str, str, int], list[tuple[Trial, str]]] = defaultdict(list)
    for trial, state in rows:
        configs[trial.arm, trial.phase, trial.config].append((trial, state))

    def place(members: list[tuple[Trial, str]]) -> tuple[bool, float, int]:
        values = [trial.value for trial, _ in members if trial.value is not None]
        mean = fmean(values) if values else 0.0
        return not values, -mean if mode == "max" else mean, -members[0][0].number

    chosen = sorted(configs.values(), key=place)[:top]
    return [row for members in chosen for row in members]


def _measured(session: Session, metric: str, job_ids: Sequence[str]) -> Mapping[str, list[CurvePoint]]:
    points: defaultdict[str, list[CurvePoint]] = defaultdict(list)
    query = metrics.values_by_epoch(metric).where(EpochMetric.job_id.in_(job_ids))
    for job_id, value, grad_evals in session.execute(query.order_by(EpochMetric.job_id, EpochMetric.epoch)):
        points[job_id].append(CurvePoint(grad_evals, value))
    return points


def _spaced(points: list[CurvePoint], most: int | None) -> list[CurvePoint]:
    """Return every n-th epoch, the same ones of each trial, so that seeds can be compared."""
    step = 1 if most is None else -(-len(points) // most)
    return points if step <= 1 else [*points[step - 1 : -1 : step], points[-1]]
