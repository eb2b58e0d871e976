"""What people tell a run of the lab: cancel it, take it up again."""

from sqlalchemy.orm import Session

from xsam.services.errors import InvalidTransitionError
from xsam.services.jobs import verbs as jobs
from xsam.services.jobs.models import Job
from xsam.services.jobs.states import TERMINAL_STATES, JobState
from xsam.services.lab.models import CANCELLED, FAILED, RUNNING, LabRun
from xsam.services.lab.service import get
from xsam.services.studies import verbs as studies
from xsam.services.teams.roles import Actor


def cancel(session: Session, run_id: str, *, actor: Actor) -> LabRun:
    """Cancel a run, its jobs and its studies.

    Raises:
        NotFoundError: no such run.
        InvalidTransitionError: it has ended.
    """
    run = get(session, run_id, lock=True)
    if run.state != RUNNING:
        raise InvalidTransitionError(f"lab run {run_id} is {run.state}; only one that is running can be cancelled")
    for stage, job in _jobs(session, run):
        if job.state not in TERMINAL_STATES:
            verb = studies.cancel if stage["kind"] == "study" else jobs.cancel
            verb(session, job.id, actor=actor)
    run.end(CANCELLED)
    return run


def resume(session: Session, run_id: str, *, actor: Actor) -> LabRun:
    """Take a failed run up again: its failed jobs, and failed trials of its studies, are tried once more.

    Raises:
        NotFoundError: no such run.
        InvalidTransitionError: it has not failed, or one of its studies was cancelled.
    """
    run = get(session, run_id, lock=True)
    if run.state != FAILED:
        raise InvalidTransitionError(f"lab run {run_id} is {run.state}; only one that has failed can be resumed")
    for stage, job in _jobs(session, run):
        if stage["kind"] == "study" and job.state == JobState.FAILED:
            studies.retry_failed(session, job.id, actor=actor)
        elif stage["kind"] in ("job", "plane") and job.state in (JobState.FAILED, JobState.CANCELLED):
            jobs.retry(session, job.id, actor=actor)
    run.take_up()
    return run


def _jobs(session: Session, run: LabRun) -> list[tuple[dict[str, str], Job]]:
    kinds = {stage["name"]: stage for stage in run.stages}
    queued = {name: done["id"] for name, done in run.work.items() if "id" in done}
    found = [(kinds[name], session.get(Job, job_id)) for name, job_id in queued.items()]
    return [(stage, job) for stage, job in found if job is not None]
