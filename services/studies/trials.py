"""What a study's runner reads and writes of its trials; every write is fenced by a lease, the study's or the trial's.

A trial is a job like any other to the queue, the quotas and the fair share. Two things are particular: a study's
runner makes the rows, and a place that a trial leaves may go straight to the study's next one (`hand_over`), as long as
nobody else waits.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, exists, func, or_, select, update
from sqlalchemy.orm import Session

from xsam.services.cluster import cordons
from xsam.services.cluster.models import ClusterNode
from xsam.services.db.base import new_id
from xsam.services.db.clock import db_now
from xsam.services.jobs import queue, wishes
from xsam.services.jobs import service as jobs
from xsam.services.jobs.models import KIND_STUDY, KIND_TRIAL, Job, JobAttempt
from xsam.services.jobs.queue import ClaimedJob, Lease
from xsam.services.jobs.states import TERMINAL_STATES, FailureKind, JobState, Wish
from xsam.services.metrics.models import EpochMetric
from xsam.services.specs.job import JobSpec
from xsam.services.studies.models import Study, Trial
from xsam.services.studies.space import Point
from xsam.services.studies.spec import Objective
from xsam.services.teams.roles import SYSTEM

SEARCH = "search"
CONFIRM = "confirm"
PAUSE = "pause"
STOP = "stop"
_S_PER_HOUR = 3600.0
_MAX_DUE = 10


@dataclass(frozen=True, slots=True)
class NewTrial:
    """A trial that is to be made."""

    arm: str
    phase: str
    config: int
    seed: int
    point: Point
    job: JobSpec
    planned_grad_evals: int | None
    job_id: str = field(default_factory=new_id)


@dataclass(frozen=True, slots=True)
class TrialState:
    """A trial as its rows are now."""

    job_id: str
    number: int
    arm: str
    phase: str
    config: int
    seed: int
    point: Point
    state: JobState
    planned_grad_evals: int | None
    value: float | None
    grad_evals: int | None
    is_stopped_early: bool
    failure_kind: str | None
    failure_message: str | None
    num_epochs: int = 0
    """Of a whole run."""
    train_s: float | None = None
    """Seconds spent in epochs, of a trial that ended well."""
    probe_forwards: int | None = None
    final_accuracy: float | None = None
    """Of the evaluation set in the last epoch, whatever the objective is."""

    @property
    def is_over(self) -> bool:
        """Whether it has ended, however."""
        return self.state in TERMINAL_STATES

    @property
    def is_failure(self) -> bool:
        """Whether it failed for a reason of code or machines; diverging is a result."""
        return self.state is JobState.FAILED and self.failure_kind != FailureKind.DIVERGED


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a trial's attempt that ended well."""

    summary: dict[str, Any]
    value: float | None
    is_stopped_early: bool


def load(session: Session, study_id: str, *, after: int = 0, also: Collection[str] = ()) -> list[TrialState]:
    """Return the study's trials by number: those above `after`, and those whose job ids are in `also`."""
    columns = (Trial, Job.state, Job.failure_kind, Job.failure_message, Job.summary, Job.num_epochs)
    query = select(*columns).join(Job, Job.id == Trial.job_id).where(Trial.study_id == study_id)
    if after:
        query = query.where(or_(Trial.number > after, Trial.job_id.in_(also)))
    return [
        TrialState(
            job_id=trial.job_id,
            number=trial.number,
            arm=trial.arm,
            phase=trial.phase,
            config=trial.config,
            seed=trial.seed,
            point=trial.params,
            state=JobState(state),
            planned_grad_evals=trial.planned_grad_evals,
            value=trial.value,
            grad_evals=trial.grad_evals,
            is_stopped_early=trial.is_stopped_early,
            failure_kind=kind,
            failure_message=message,
            num_epochs=num_epochs,
            train_s=(summary or {}).get("train_s"),
            probe_forwards=(summary or {}).get("probe_forwards"),
            final_accuracy=(summary or {}).get("final_accuracy"),
        )
        for trial, state, kind, message, summary, num_epochs in session.execute(query.order_by(Trial.number))
    ]


def enqueue(session: Session, study_lease: Lease, new: NewTrial) -> str:
    """Queue a trial and return its job id.

    Raises:
        LeaseLostError: the caller no longer runs the study.
    """
    queue.touch(session, study_lease)
    return add(session, study_lease.job_id, new).job_id


def add(session: Session, study_id: str, new: NewTrial) -> Trial:
    """Make a trial's rows; the caller has locked the study, since two trials must not get one number."""
    study = session.get_one(Job, study_id)
    number = 1 + (session.scalar(select(func.max(Trial.number)).where(Trial.study_id == study_id)) or 0)
    job = jobs.new_job(
        KIND_TRIAL,
        new.job,
        trains=new.job,
        id=new.job_id,
        name=None if study.name is None else f"{study.name[:90]} {number}",
        team=study.team,
        submitted_by=study.submitted_by,
        labels=study.labels,
        priority=study.priority,
    )
    message = f"trial {number} of study {study_id}"
    jobs.add_once(session, job, new.job, actor=SYSTEM, message=message, data={"study": study_id})
    trial = Trial(
        job_id=job.id,
        study_id=study_id,
        number=number,
        arm=new.arm,
        phase=new.phase,
        config=new.config,
        seed=new.seed,
        params=new.point,
        planned_grad_evals=new.planned_grad_evals,
    )
    session.add(trial)
    session.flush()
    return trial


def finish(session: Session, lease: Lease, result: Result) -> None:
    """End a trial that ran to its end, or as far as its early stopper let it.

    Raises:
        LeaseLostError: the trial is somebody else's.
    """
    queue.complete(session, lease, summary=result.summary)
    values = {"value": result.value, "is_stopped_early": result.is_stopped_early}
    session.execute(update(Trial).where(Trial.job_id == lease.job_id).values(**values))
    keep_cost(session, lease.job_id)


def keep_cost(session: Session, job_id: str) -> None:
    """Copy what a trial has used so far from its epochs to its own row, where sums and pages find it fast."""
    used = select(func.max(EpochMetric.grad_evals)).where(EpochMetric.job_id == job_id).scalar_subquery()
    session.execute(update(Trial).where(Trial.job_id == job_id).values(grad_evals=func.coalesce(used, 0)))


def hand_over(  # noqa: PLR0913 - the place, and who asks for whom
    session: Session, study_lease: Lease, next_id: str, *, left: Job, runner: str, nodes: Sequence[str], lease_s: float
) -> ClaimedJob | None:
    """Claim a trial for the place that another trial of its study leaves in this transaction, if that is fair.

    It is not where any other job is due, whoever's, or a node takes no new jobs: then the dispatcher decides. Among the
    study's own, those that have waited longer go first.

    Args:
        session: open in the unit of work that ends the trial which leaves.
        study_lease: of the study.
        next_id: the trial to start.
        left: the job that leaves; `nodes` are where it ran.
        runner: name of the process that runs the study.
        nodes: node of each worker.
        lease_s: length of the lease.
    """
    due = (Job.state == JobState.QUEUED, Job.scheduled_at <= db_now())
    own = Job.id.in_(select(Trial.job_id).where(Trial.study_id == study_lease.job_id))
    others = select(Job.id).where(*due, ~own, Job.kind != KIND_STUDY)
    if session.scalar(select(exists(others))) or _is_set_apart(session, nodes):
        return None
    shape = (
        Job.num_workers == left.num_workers,
        Job.gpus_per_worker == left.gpus_per_worker,
        Job.cpus_per_worker == left.cpus_per_worker,
        Job.gpu_kind.is_not_distinct_from(left.gpu_kind),
        Job.min_gpu_memory_gb.is_not_distinct_from(left.min_gpu_memory_gb),
        Job.node_labels.is_not_distinct_from(left.node_labels),
    )
    waiting = select(Job.id).where(*due, own, *shape).order_by(Job.created_at, Job.id).limit(1)
    first_id = session.scalar(waiting) or next_id
    return queue.claim(session, first_id, runner=runner, lease_s=lease_s, placement=nodes)


def _is_set_apart(session: Session, nodes: Sequence[str]) -> bool:
    apart = cordons.read(session)
    if not apart.rows:
        return False
    places = session.execute(select(ClusterNode.host, ClusterNode.id).where(ClusterNode.id.in_(nodes)))
    return apart.maintenance is not None or any(apart.of(host, node_id) for host, node_id in places)


def due_studies(session: Session) -> Sequence[str]:
    """Return the first of the studies that wait for a runner."""
    query = select(Job.id).where(Job.state == JobState.QUEUED, Job.kind == KIND_STUDY, Job.scheduled_at <= db_now())
    return session.scalars(query.order_by(Job.priority.desc(), Job.created_at).limit(_MAX_DUE)).all()


def runner_names(session: Session, job_ids: Collection[str]) -> dict[str, str | None]:
    """Return the name of the study's runner for each trial among these jobs."""
    query = select(Trial.job_id, Study.runner_name).join(Study, Study.job_id == Trial.study_id)
    return {row.job_id: row.runner_name for row in session.execute(query.where(Trial.job_id.in_(job_ids)))}


def running_leases(session: Session, study_id: str) -> list[Lease]:
    """Return the leases of the study's running trials; they die with its runner."""
    query = select(Job).join(Trial, Trial.job_id == Job.id)
    query = query.where(Trial.study_id == study_id, Job.state == JobState.RUNNING)
    return [Lease(job.id, job.lease_token or "", job.attempt) for job in session.scalars(query)]


def ask_to_stop(session: Session, study_id: str, *, is_cancelled: bool, why: str) -> None:
    """Ask the study's trials to make way for its end; calling it again changes nothing.

    Args:
        session: open in a unit of work.
        study_id: the study.
        is_cancelled: whether trials that wait or run are cancelled; otherwise running ones go back to the queue.
        why: what the study is, for the events.
    """
    own = select(Job.id, Job.state, Job.wish).join(Trial, Trial.job_id == Job.id).where(Trial.study_id == study_id)
    for job_id, state, wish in session.execute(own.where(Job.state.not_in(TERMINAL_STATES))).all():
        if is_cancelled and wish != Wish.CANCEL:
            wishes.request_cancel(session, job_id, actor="system")
        elif not is_cancelled and wish is None and state == JobState.RUNNING:
            wishes.request_preemption(session, job_id, reason=f"study {study_id} is {why}")


def has_takers() -> ColumnElement[bool]:
    """Return the condition that a job can be placed now: it is no trial, or its study has a runner to take it."""
    study = select(Job.id).where(Job.id == Study.job_id, Job.state == JobState.RUNNING).correlate(Study)
    served = select(Trial.job_id).join(Study, Study.job_id == Trial.study_id)
    served = served.where(Study.runner_name.is_not(None), Study.hold.is_distinct_from(PAUSE), exists(study))
    return or_(Job.kind != KIND_TRIAL, Job.id.in_(served))


def gpu_hours(session: Session, study_id: str) -> float:
    """Return the GPU-hours that all attempts of the study's trials have held."""
    query = (
        select(JobAttempt.started_at, func.coalesce(JobAttempt.finished_at, db_now()), Job.gpus_per_worker)
        .add_columns(Job.num_workers)
        .join(Job, Job.id == JobAttempt.job_id)
        .join(Trial, Trial.job_id == Job.id)
        .where(Trial.study_id == study_id)
    )
    seconds = sum((end - start).total_seconds() * gpus * num for start, end, gpus, num in session.execute(query))
    return float(seconds) / _S_PER_HOUR


def objective_of(objective: Objective, values: Sequence[float]) -> float | None:
    """Return the objective of a trial whose epochs measured these values; None without any."""
    if not values:
        return None
    if objective.at == "last":
        return values[-1]
    return max(values) if objective.mode == "max" else min(values)
