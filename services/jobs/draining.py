"""Empties nodes: whatever runs on a drained one is asked to save its state and goes back to the queue."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from xsam.services.cluster import cordons
from xsam.services.jobs import wishes
from xsam.services.jobs.models import Job
from xsam.services.jobs.states import JobState


def jobs_to_move(session: Session) -> list[str]:
    """Return the running jobs on drained nodes that nobody has asked for anything yet."""
    drained = cordons.drained_nodes(session)
    if not drained:
        return []
    running = select(Job.id, Job.placement).where(Job.state == JobState.RUNNING, Job.wish.is_(None))
    return [job_id for job_id, placement in session.execute(running) if drained & set(placement or ())]


def ask_to_move(session: Session, job_id: str) -> None:
    """Ask one of them; it keeps its place in the queue, its budgets and its newest checkpoint."""
    wishes.request_preemption(session, job_id, reason="its node is drained")
