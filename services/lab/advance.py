"""How a run goes from stage to stage, and to its verdict: called by the leading dispatcher, in short transactions.

A stage becomes a job or a study by a submit with the idempotency key `lab/RUN/STAGE`, in the transaction that notes it
in the run's row. Whoever dies in between leaves nothing or both, and whoever comes next finds the one that is there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from xsam.services.errors import ServiceError
from xsam.services.jobs import service as jobs
from xsam.services.jobs.models import Job
from xsam.services.jobs.states import JobState
from xsam.services.lab.figures.catalog import FIGURES
from xsam.services.lab.figures.figure import Evidence
from xsam.services.lab.models import FAILED, RUNNING, SUCCEEDED, LabRun
from xsam.services.lab.spec import LabSpec, Stage
from xsam.services.metrics import service as metrics
from xsam.services.settings import AllowedCode
from xsam.services.specs.job import JobSpec
from xsam.services.studies import service as studies
from xsam.services.studies import trials
from xsam.services.studies.spec import StudySpec
from xsam.services.teams.roles import Actor

_ENDED_BADLY = (JobState.FAILED, JobState.CANCELLED)


@dataclass(frozen=True, slots=True)
class Computation:
    """Something that a run needs computed outside of the database."""

    run_id: str
    stage: str
    document: Mapping[str, Any]


def running(session: Session) -> Sequence[str]:
    """Return the runs that are under way, oldest first."""
    return session.scalars(select(LabRun.id).where(LabRun.state == RUNNING).order_by(LabRun.created_at)).all()


def advance(session: Session, run_id: str, *, allowed: AllowedCode) -> list[Computation]:
    """Queue what can be queued, note what has ended, end the run when all has; return what is to be computed.

    Args:
        session: open in a unit of work.
        run_id: the run; one that has ended is left alone.
        allowed: which code of users' own its jobs may name.
    """
    run = session.scalar(select(LabRun).where(LabRun.id == run_id, LabRun.state == RUNNING).with_for_update())
    if run is None:
        return []
    stages = [Stage.model_validate(stage) for stage in run.stages]
    work = dict(run.work)
    for stage in stages:
        if stage.kind != "computation":
            failure = _look_after(session, run, stage, work, allowed)
            if failure is not None:
                run.end(FAILED, failure)
                break
    if work != run.work:
        run.work = work
    if run.state != RUNNING:
        return []
    if all(work.get(stage.name, {}).get("state") == SUCCEEDED for stage in stages):
        _conclude(session, run, stages)
    wanted = [stage for stage in stages if stage.kind == "computation" and stage.name not in work]
    return [Computation(run.id, stage.name, stage.document) for stage in wanted]


def _look_after(session: Session, run: LabRun, stage: Stage, work: dict[str, Any], allowed: AllowedCode) -> str | None:
    """Queue a stage, or note how its job stands; return why the run can't go on, if it can't."""
    if stage.name not in work:
        if stage.after is not None and work.get(stage.after, {}).get("state") != SUCCEEDED:
            return None
        try:
            job_id = _submit(session, run, stage, work, allowed)
        except ServiceError as e:
            return f"stage {stage.name} can't be queued: {e.message}"
        work[stage.name] = {"id": job_id}
    job = session.get(Job, work[stage.name]["id"])
    if job is None:
        return f"stage {stage.name}: {stage.kind} {work[stage.name]['id']} has been deleted"
    work[stage.name] = {"id": job.id, "state": str(job.state)}
    if job.state in _ENDED_BADLY:
        why = f": {job.failure_message}" if job.failure_message else ""
        return f"stage {stage.name}: {stage.kind} {job.id} {job.state}{why}"
    return None


def take_computed(session: Session, run_id: str, stage: str, computed: Mapping[str, Any]) -> None:
    """Store what was computed for a stage; the first answer stays."""
    run = session.scalar(select(LabRun).where(LabRun.id == run_id).with_for_update())
    if run is not None and stage not in run.work:
        run.work = {**run.work, stage: {"state": SUCCEEDED, "computed": dict(computed)}}


def fail(session: Session, run_id: str, message: str) -> None:
    """End a run that can't go on."""
    run = session.scalar(select(LabRun).where(LabRun.id == run_id, LabRun.state == RUNNING).with_for_update())
    if run is not None:
        run.end(FAILED, message)


def _submit(session: Session, run: LabRun, stage: Stage, work: Mapping[str, Any], allowed: AllowedCode) -> str:
    actor = Actor(run.submitted_by, run.team)
    key = f"lab/{run.id}/{stage.name}"
    if stage.kind == "study":
        study = StudySpec.model_validate(stage.document)
        return studies.submit(session, study, actor=actor, allowed=allowed, idempotency_key=key)[0].id
    document: dict[str, Any] = dict(stage.document)
    if stage.kind == "plane":
        trained = {} if stage.after is None else {"job": work[stage.after]["id"]}
        document = {"name": f"lab {run.figure} {stage.name}", "plane": {**document, **trained}}
    job = JobSpec.model_validate(document)
    return jobs.submit(session, job, actor=actor, allowed=allowed, idempotency_key=key)[0].id


def _conclude(session: Session, run: LabRun, stages: Sequence[Stage]) -> None:
    evidence = {stage.name: _evidence(session, stage, run.work[stage.name]) for stage in stages}
    found = FIGURES[run.figure].find(LabSpec.model_validate(run.spec), evidence)
    run.finding = found.model_dump(mode="json")
    run.verdict = found.verdict
    run.end(SUCCEEDED)


def _evidence(session: Session, stage: Stage, done: Mapping[str, Any]) -> Evidence:
    if stage.kind == "computation":
        return Evidence(computed=done["computed"])
    if stage.kind == "study":
        return Evidence(trials=trials.load(session, done["id"]))
    job = session.get_one(Job, done["id"])
    if stage.kind == "plane":
        return Evidence(planes=metrics.list_planes(session, job.id))
    return Evidence(alphas=metrics.list_alphas(session, job.id), num_epochs=job.num_epochs)
