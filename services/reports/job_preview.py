"""What a job would take and where it would stand, without queueing it."""

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from xsam.services.cluster import service as cluster
from xsam.services.jobs import planes
from xsam.services.jobs.cost import cost_of, measured_pace
from xsam.services.jobs.models import KIND_STUDY, Job
from xsam.services.jobs.service import check_runnable
from xsam.services.jobs.states import JobState
from xsam.services.scheduling import last_decision
from xsam.services.schemas import Read
from xsam.services.settings import NO_CODE, AllowedCode
from xsam.services.specs.job import JobSpec

MAX_COUNTED = 10_000


class JobPreview(Read):
    """What a job would take; nothing was queued."""

    steps: int | None
    """Training steps of a whole run; null where only the data's files can tell."""
    grad_evals: int | None
    """Forward-backward passes of a whole run."""
    probe_forwards: int | None
    """Forward passes spent on alpha searches."""
    seconds_per_grad_eval: float | None
    """Median of comparable runs: same model, dataset, batch size and resources; null if there was none."""
    num_comparable: int
    train_s: float | None
    gpu_hours: float | None
    num_suitable_nodes: int | None
    """Nodes that a worker of it fits on when nothing runs there; null before the cluster was seen."""
    num_ahead: int
    """Queued jobs of at least its priority, counted up to 10,000; the fair share may let it pass some of them."""
    num_queued: int | None
    """Jobs in the queue as of the last decision; null before the first."""
    as_of: datetime | None
    spec: JobSpec
    """As it would be stored, defaults filled in."""


def preview(session: Session, spec: JobSpec, *, team: str, allowed: AllowedCode = NO_CODE) -> JobPreview:
    """Return what the job would take and where it would stand.

    Raises:
        InvalidRequestError: the specification names code that is not allowed here.
        InfeasibleError: the cluster, as last seen, or the team's quota could never hold it.
    """
    spec = planes.filled(session, spec, team=team)
    check_runnable(session, spec, team=team, allowed=allowed)
    cost = cost_of(spec)
    pace, num_comparable = measured_pace(session, spec)
    train_s = None if pace is None or cost.grad_evals is None else pace * cost.grad_evals
    gpus = spec.resources.num_workers * spec.resources.gpus_per_worker
    line = last_decision.read_line(session, after=0, limit=0)
    return JobPreview(
        steps=cost.steps,
        grad_evals=cost.grad_evals,
        probe_forwards=cost.probe_forwards,
        seconds_per_grad_eval=pace,
        num_comparable=num_comparable,
        train_s=train_s,
        gpu_hours=None if train_s is None else train_s * gpus / 3600,
        num_suitable_nodes=cluster.num_suitable_nodes(session, spec.resources),
        num_ahead=_num_ahead(session, spec.priority),
        num_queued=None if line is None else line.num_queued,
        as_of=None if line is None else line.planned_at,
        spec=spec,
    )


def _num_ahead(session: Session, priority: int) -> int:
    ahead = select(Job.id).where(Job.state == JobState.QUEUED, Job.priority >= priority, Job.kind != KIND_STUDY)
    counted = select(func.count()).select_from(ahead.limit(MAX_COUNTED).subquery())
    return session.scalar(counted) or 0
