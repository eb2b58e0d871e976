"""What the API calls for studies: submit, preview, read, list; the verbs are in `verbs`, the answers in `analysis`."""

import random
import statistics
from collections.abc import Iterable, Sequence
from itertools import islice

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from xsam.services import paging
from xsam.services.cluster import service as cluster
from xsam.services.errors import InfeasibleError, InvalidRequestError, NotFoundError
from xsam.services.jobs import service as jobs
from xsam.services.jobs.cost import cost_of, measured_pace
from xsam.services.jobs.listing import JobFilter, filtered
from xsam.services.jobs.models import KIND_STUDY, Job
from xsam.services.settings import NO_CODE, AllowedCode
from xsam.services.studies import space as spaces
from xsam.services.studies.algorithms import GridSampler
from xsam.services.studies.arms import Arm, arms_of, job_spec
from xsam.services.studies.models import Study
from xsam.services.studies.schemas import ArmCostRead, StudyPreview
from xsam.services.studies.space import Point
from xsam.services.studies.spec import StudySpec
from xsam.services.teams.roles import Actor


def submit(
    session: Session,
    spec: StudySpec,
    *,
    actor: Actor,
    allowed: AllowedCode = NO_CODE,
    idempotency_key: str | None = None,
) -> tuple[Job, bool]:
    """Queue a study and return its row with whether it is new.

    A repeated submit with the same key and the same specification returns the first study.

    Raises:
        InvalidRequestError: the base job names code that is not allowed here.
        InfeasibleError: the cluster, as last seen, or the team's quota could never hold a trial.
        ConflictError: the key was used for another specification.
    """
    earlier = jobs.earlier_submit(session, KIND_STUDY, spec, team=actor.team, key=idempotency_key)
    if earlier is not None:
        return earlier, False
    check_runnable(session, spec, team=actor.team, allowed=allowed, holds_team=True)
    job = jobs.new_job(
        KIND_STUDY,
        spec,
        trains=None,  # its trials do
        name=spec.name,
        team=actor.team,
        submitted_by=actor.user,
        labels=spec.base.labels,
        priority=spec.base.priority,
        idempotency_key=idempotency_key,
    )
    job, is_new = jobs.add_once(session, job, spec, actor=actor.user, message=f"queued by {actor.user}")
    if is_new:
        space = {path: dimension.model_dump(mode="json") for path, dimension in spec.space.items()}
        session.add(Study(job_id=job.id, num_configs=spec.num_configs, space=space, concurrency=spec.concurrency))
        session.flush()
    return job, is_new


def check_runnable(
    session: Session, spec: StudySpec, *, team: str, allowed: AllowedCode, holds_team: bool = False
) -> None:
    """Refuse a study whose trials could never run; see the function of the same name for jobs.

    Raises:
        InvalidRequestError: the base job names code that is not allowed here.
        InfeasibleError: the cluster, as last seen, or the team's quota could never hold a trial.
    """
    try:
        jobs.check_runnable(session, spec.base, team=team, allowed=allowed, holds_team=holds_team)
    except (InvalidRequestError, InfeasibleError) as e:
        raise type(e)(e.message, field=None if e.field is None else f"base.{e.field}") from e


def get(session: Session, study_id: str, *, lock: bool = False) -> tuple[Job, Study]:
    """Return a study's two rows, on request locked until the transaction ends.

    Raises:
        NotFoundError: no such study.
    """
    query = select(Job, Study).join(Study, Study.job_id == Job.id).where(Job.id == study_id)
    found = session.execute(query.with_for_update() if lock else query).one_or_none()
    if found is None:
        raise NotFoundError(f"no study {study_id}", field="study_id")
    return found[0], found[1]


def spec_of(job: Job) -> StudySpec:
    """Return a study's specification, as it was submitted."""
    return StudySpec.model_validate(job.spec)


def list_studies(
    session: Session, *, where: JobFilter, cursor: str | None = None, limit: int = 50
) -> tuple[Sequence[tuple[Job, Study]], str | None]:
    """Return a page of studies, newest first, and the cursor of the next page (None on the last).

    Raises:
        InvalidRequestError: the cursor is not one of ours.
    """
    query = filtered(select(Job, Study).join(Study, Study.job_id == Job.id), where)
    rows, next_cursor = paging.newest_first(session, query, Job, cursor=cursor, limit=limit)
    return [(row[0], row[1]) for row in rows], next_cursor


MAX_SAMPLED_POINTS = 64
"""The mean over so many points stands for the mean over the space; trials of one study cost about the same."""


def preview(session: Session, spec: StudySpec, *, team: str, allowed: AllowedCode = NO_CODE) -> StudyPreview:
    """Return what the study would take, without queueing anything.

    Raises:
        InvalidRequestError: the base job names code that is not allowed here.
        InfeasibleError: the cluster, as last seen, or the team's quota could never hold a trial.
    """
    check_runnable(session, spec, team=team, allowed=allowed)
    arms = [_arm_cost(spec, arm) for arm in arms_of(spec)]
    pace, num_comparable = measured_pace(session, spec.base)
    grad_evals = _total(arm.grad_evals for arm in arms)
    work_s = None if pace is None or grad_evals is None else pace * grad_evals
    resources = spec.base.resources
    at_once = min(spec.concurrency, _room(session, spec) or spec.concurrency)
    gpus = resources.gpus_per_worker * resources.num_workers
    return StudyPreview(
        num_trials=sum(arm.num_trials + arm.num_confirm_trials for arm in arms),
        grad_evals=grad_evals,
        probe_forwards=_total(arm.probe_forwards for arm in arms),
        seconds_per_grad_eval=pace,
        num_comparable=num_comparable,
        work_s=work_s,
        wall_s=None if work_s is None else work_s / at_once,
        gpu_hours=None if work_s is None else work_s * gpus / 3600,
        arms=arms,
        spec=spec,
    )


def _arm_cost(spec: StudySpec, arm: Arm) -> ArmCostRead:
    num_trials = arm.num_configs * spec.seeds_per_config
    num_confirm = spec.num_confirm_seeds
    grad_evals, probes = _mean_cost(spec, arm)
    count = num_trials + num_confirm
    return ArmCostRead(
        arm=arm.name,
        num_configs=arm.num_configs,
        num_trials=num_trials,
        num_confirm_trials=num_confirm,
        grad_evals=None if grad_evals is None else round(grad_evals * count),
        probe_forwards=None if probes is None else round(probes * count),
    )


def _mean_cost(spec: StudySpec, arm: Arm) -> tuple[float | None, float | None]:
    costs = []
    for point in _some_points(spec, arm):
        try:
            costs.append(cost_of(job_spec(spec, arm, point, spec.base.seed)))
        except ValidationError:
            continue  # the ends of all axes are valid; a point between that is not will be skipped by the search
    known = [(c.grad_evals, c.probe_forwards) for c in costs if c.grad_evals is not None]
    if not known:
        return None, None
    return statistics.fmean(g for g, _ in known if g is not None), statistics.fmean(p or 0 for _, p in known)


def _some_points(spec: StudySpec, arm: Arm) -> Iterable[Point]:
    num_axes = len(spaces.axes(arm.space))
    if isinstance(spec.sampler, GridSampler):
        points = list(islice(spaces.grid(arm.space, spec.sampler.points), arm.num_configs))
        stride = max(1, len(points) // (MAX_SAMPLED_POINTS * 4))
        return points[::stride]
    generator = random.Random(0)
    count = min(MAX_SAMPLED_POINTS, arm.num_configs)
    return [spaces.point_at(arm.space, [generator.random() for _ in range(num_axes)]) for _ in range(count)]


def _room(session: Session, spec: StudySpec) -> int:
    """Return how many trials the whole cluster holds at once, 0 if nothing is known of it."""
    resources = spec.base.resources
    nodes = cluster.live_nodes(session)
    workers = sum(cluster.workers_that_fit(node.num_cpus, node.num_gpus, resources) for node in nodes)
    return workers // resources.num_workers


def _total(values: Iterable[int | None]) -> int | None:
    known = list(values)
    return None if any(value is None for value in known) else sum(value for value in known if value is not None)
