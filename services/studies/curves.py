"""The objective of trials epoch by epoch, over what it has cost."""

from collections import defaultdict
from typing import NamedTuple

from sqlalchemy import case, select
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
    state: JobState
    value: float | None
    """The objective, once the trial has ended."""
    is_stopped_early: bool
    points: list[CurvePoint]


class CurvesRead(Read):
    """Curves of a study's trials, the best first, then those that have not ended."""

    metric: str
    items: list[CurveRead]


def read_curves(session: Session, study_id: str, *, top: int = 20, arm: str | None = None) -> CurvesRead:
    """Return the curves of the best trials, and of those that run, at most `top` of them.

    Raises:
        NotFoundError: no such study.
    """
    job, _ = service.get(session, study_id)
    objective = spec_of(job).objective
    is_over = case((Trial.value.is_(None), 1), else_=0)
    order = Trial.value.desc() if objective.mode == "max" else Trial.value.asc()
    query = (
        select(Trial, Job.state).join(Job, Job.id == Trial.job_id).where(Trial.study_id == study_id, Job.attempt > 0)
    )
    if arm is not None:
        query = query.where(Trial.arm == arm)
    rows = session.execute(query.order_by(is_over, order, Trial.number.desc()).limit(top)).all()
    points: defaultdict[str, list[CurvePoint]] = defaultdict(list)
    measured = metrics.values_by_epoch(objective.metric).where(EpochMetric.job_id.in_([row[0].job_id for row in rows]))
    for job_id, value, grad_evals in session.execute(measured.order_by(EpochMetric.job_id, EpochMetric.epoch)):
        points[job_id].append(CurvePoint(grad_evals, value))
    items = [
        CurveRead(
            id=trial.job_id,
            number=trial.number,
            arm=trial.arm,
            phase=trial.phase,
            state=JobState(state),
            value=trial.value,
            is_stopped_early=trial.is_stopped_early,
            points=points[trial.job_id],
        )
        for trial, state in rows
    ]
    return CurvesRead(metric=objective.metric, items=items)
