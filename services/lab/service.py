"""What the API calls for the lab: list figures, submit a run of one, preview, read, list; `verbs` changes runs."""

from collections.abc import Sequence

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from xsam.services import paging
from xsam.services.artifacts import service as artifacts
from xsam.services.errors import ConflictError, InfeasibleError, InvalidRequestError, NotFoundError
from xsam.services.jobs import planes
from xsam.services.jobs import service as jobs
from xsam.services.jobs.cost import cost_of, measured_pace
from xsam.services.lab.figures.catalog import FIGURES
from xsam.services.lab.models import LabRun
from xsam.services.lab.schemas import FigureRead, LabPreview, StageCost
from xsam.services.lab.spec import LabSpec, Stage
from xsam.services.settings import NO_CODE, AllowedCode
from xsam.services.specs.job import JobSpec
from xsam.services.specs.plane import Plane, PlaneView
from xsam.services.studies import service as studies
from xsam.services.studies.spec import StudySpec
from xsam.services.teams import limits
from xsam.services.teams.roles import Actor


def figures() -> list[FigureRead]:
    """Return all figures that can be made."""
    return [FigureRead(name=name, title=one.title, claim=one.claim) for name, one in FIGURES.items()]


def plan(spec: LabSpec) -> list[Stage]:
    """Return what a run queues.

    Raises:
        InvalidRequestError: the changes in `base` make no valid job.
    """
    try:
        stages = list(FIGURES[spec.figure].plan(spec))
        for stage in stages:
            if stage.kind == "job":
                JobSpec.model_validate(stage.document)
            elif stage.kind == "study":
                StudySpec.model_validate(stage.document)
            elif stage.kind == "plane":
                PlaneView.model_validate({name: value for name, value in stage.document.items() if name != "job"})
    except ValidationError as e:
        error = e.errors()[0]
        where = error.get("ctx", {}).get("field") or ".".join(str(part) for part in error["loc"])
        field = f"base.{where.removeprefix('base.')}"
        raise InvalidRequestError(f"{field}: {error['msg']}", field=field) from e
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        # A part was replaced by something of another shape.
        raise InvalidRequestError(f"base does not fit the job of scale {spec.scale}: {e}", field="base") from e
    return stages


def submit(
    session: Session,
    spec: LabSpec,
    *,
    actor: Actor,
    allowed: AllowedCode = NO_CODE,
    idempotency_key: str | None = None,
) -> tuple[LabRun, bool]:
    """Begin a run and return its row with whether it is new; the leading dispatcher queues its stages.

    Raises:
        InvalidRequestError: the changes in `base` make no valid job, or name code that is not allowed here; `job` is
            none that can be looked at.
        InfeasibleError: the cluster, as last seen, or the team's quota could never hold one of its jobs.
        ConflictError: the key was used for another run.
    """
    earlier = _earlier(session, spec, team=actor.team, key=idempotency_key)
    if earlier is not None:
        return earlier, False
    limits.row_of(session, actor.team, holds=True)
    stages = plan(spec)
    _check_runnable(session, stages, team=actor.team, allowed=allowed)
    run = LabRun(
        team=actor.team,
        submitted_by=actor.user,
        idempotency_key=idempotency_key,
        figure=spec.figure,
        scale=spec.scale,
        spec=spec.model_dump(mode="json"),
        stages=[stage.model_dump(mode="json") for stage in stages],
        work={},
    )
    try:
        with session.begin_nested():
            session.add(run)
            session.flush()
    except IntegrityError:
        winner = _earlier(session, spec, team=actor.team, key=idempotency_key)
        if winner is None:
            raise
        return winner, False
    return run, True


def preview(session: Session, spec: LabSpec, *, team: str, allowed: AllowedCode = NO_CODE) -> LabPreview:
    """Return what a run would take, without queueing anything.

    Raises:
        InvalidRequestError, InfeasibleError: as `submit`.
    """
    stages = plan(spec)
    _check_runnable(session, stages, team=team, allowed=allowed)
    costs, seconds = [], []
    for stage in stages:
        cost, work_s = _cost(session, stage, team=team, allowed=allowed)
        costs.append(cost)
        seconds.append(work_s)
    return LabPreview(
        stages=costs,
        num_trials=sum(cost.num_trials for cost in costs),
        grad_evals=_sum([cost.grad_evals for cost in costs]),
        probe_forwards=_sum([cost.probe_forwards for cost in costs]),
        gpu_hours=_sum([cost.gpu_hours for cost in costs]),
        work_s=_sum(seconds),
        spec=spec,
    )


def get(session: Session, run_id: str, *, lock: bool = False) -> LabRun:
    """Return a run, on request locked until the transaction ends.

    Raises:
        NotFoundError: no such run.
    """
    query = select(LabRun).where(LabRun.id == run_id)
    run = session.scalar(query.with_for_update() if lock else query)
    if run is None:
        raise NotFoundError(f"no lab run {run_id}", field="run_id")
    return run


def team_of(session: Session, run_id: str) -> str | None:
    """Return the team whose run it is; None where there is none."""
    return session.scalar(select(LabRun.team).where(LabRun.id == run_id))


def list_runs(
    session: Session, *, team: str | None, figure: str | None = None, cursor: str | None = None, limit: int = 50
) -> tuple[Sequence[LabRun], str | None]:
    """Return a page of runs, newest first, and the cursor of the next page (None on the last).

    Raises:
        InvalidRequestError: the cursor is not one of ours.
    """
    query = select(LabRun)
    if team is not None:
        query = query.where(LabRun.team == team)
    if figure is not None:
        query = query.where(LabRun.figure == figure)
    rows, next_cursor = paging.newest_first(session, query, LabRun, cursor=cursor, limit=limit)
    return [row[0] for row in rows], next_cursor


def _earlier(session: Session, spec: LabSpec, *, team: str, key: str | None) -> LabRun | None:
    if key is None:
        return None
    run = session.scalar(select(LabRun).where(LabRun.team == team, LabRun.idempotency_key == key))
    if run is not None and LabSpec.model_validate(run.spec) != spec:
        message = f"Idempotency-Key {key!r} belongs to lab run {run.id}, which has another specification"
        raise ConflictError(message, field="Idempotency-Key")
    return run


def _check_runnable(session: Session, stages: Sequence[Stage], *, team: str, allowed: AllowedCode) -> None:
    for stage in stages:
        if stage.kind == "plane" and stage.after is None:
            _check_looked_at(session, Plane.model_validate(stage.document), team=team)
    try:
        for stage in stages:
            if stage.kind == "job":
                jobs.check_runnable(session, JobSpec.model_validate(stage.document), team=team, allowed=allowed)
            elif stage.kind == "study":
                studies.check_runnable(session, StudySpec.model_validate(stage.document), team=team, allowed=allowed)
    except (InvalidRequestError, InfeasibleError) as e:
        field = None if e.field is None else f"base.{e.field.removeprefix('base.')}"
        raise type(e)(e.message, field=field) from e


def _check_looked_at(session: Session, plane: Plane, *, team: str) -> None:
    try:
        planes.trained_by(session, plane, team=team)
    except InvalidRequestError as e:
        raise InvalidRequestError(e.message.removeprefix("plane."), field="job") from e
    if not artifacts.list_checkpoints(session, plane.job):
        raise InvalidRequestError(
            f"job is {plane.job!r}, which has no checkpoint: it has not come to one, or retention has deleted them",
            field="job",
        )


def _cost(session: Session, stage: Stage, *, team: str, allowed: AllowedCode) -> tuple[StageCost, float | None]:
    if stage.kind == "study":
        found = studies.preview(session, StudySpec.model_validate(stage.document), team=team, allowed=allowed)
        names = ("num_trials", "grad_evals", "probe_forwards", "gpu_hours")
        numbers = {name: getattr(found, name) for name in names}
        return StageCost(name=stage.name, kind=stage.kind, **numbers), found.work_s
    if stage.kind == "plane":
        return _cost_of_plane(session, stage), None
    if stage.kind == "computation":
        cost = StageCost(name=stage.name, kind=stage.kind, num_trials=0, grad_evals=0, probe_forwards=0, gpu_hours=0.0)
        return cost, 0.0
    job = JobSpec.model_validate(stage.document)
    counted = cost_of(job)
    pace, _ = measured_pace(session, job)
    work_s = None if pace is None or counted.grad_evals is None else pace * counted.grad_evals
    gpus = job.resources.num_workers * job.resources.gpus_per_worker
    cost = StageCost(
        name=stage.name,
        kind=stage.kind,
        num_trials=1,
        grad_evals=counted.grad_evals,
        probe_forwards=counted.probe_forwards,
        gpu_hours=None if work_s is None else work_s * gpus / 3600,
    )
    return cost, work_s


def _cost_of_plane(session: Session, stage: Stage) -> StageCost:
    """Return what a look at all checkpoints takes; unknown where those have yet to be made."""
    points = PlaneView.model_validate({name: v for name, v in stage.document.items() if name != "job"}).num_points ** 2
    num = None if stage.after is not None else len(artifacts.list_checkpoints(session, str(stage.document["job"])))
    probes = None if num is None else num * points
    return StageCost(
        name=stage.name, kind=stage.kind, num_trials=0, grad_evals=0, probe_forwards=probes, gpu_hours=None
    )


def _sum(values: Sequence[float | int | None]) -> float | int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
