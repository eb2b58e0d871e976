"""Deleting jobs that ended long ago, with everything that hangs on their rows; what they used stays counted."""

from collections.abc import Sequence

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from xsam.services.jobs.models import Job, JobEvent
from xsam.services.jobs.states import TERMINAL_STATES


def forget(session: Session, job_ids: Sequence[str]) -> Sequence[str]:
    """Delete jobs that have ended; returns those that were.

    The job of the newest event stays: SQLite would give that event's number again, and whoever follows changes by
    number would miss what has it next.

    Args:
        session: open in a unit of work.
        job_ids: trials before their study.
    """
    newest = session.scalar(select(JobEvent.job_id).order_by(JobEvent.id.desc()).limit(1))
    wanted = [job_id for job_id in job_ids if job_id != newest]
    gone = delete(Job).where(Job.id.in_(wanted), Job.state.in_(TERMINAL_STATES)).returning(Job.id)
    return session.scalars(gone).all()
