"""Checkpoints of ended jobs are deleted after a while; weights, logs and rows stay."""

import shutil
from pathlib import Path

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from xsam.services.artifacts.layout import JobFolder
from xsam.services.artifacts.models import Checkpoint
from xsam.services.db.clock import db_now
from xsam.services.jobs.models import Job
from xsam.services.jobs.states import TERMINAL_STATES

_SECONDS_PER_DAY = 86_400.0


def find_outdated(session: Session, *, keep_days: float, limit: int = 20) -> list[str]:
    """Return jobs that ended more than `keep_days` ago and still have checkpoints."""
    query = (
        select(Job.id)
        .where(Job.state.in_(TERMINAL_STATES), Job.finished_at < db_now(-keep_days * _SECONDS_PER_DAY))
        .where(select(Checkpoint.name).where(Checkpoint.job_id == Job.id).exists())
    )
    return list(session.scalars(query.limit(limit)))


def forget(session: Session, root: Path, job_id: str) -> None:
    """Delete a job's checkpoints: the files first, so that a row never outlives the chance to find its file."""
    shutil.rmtree(JobFolder(root, job_id).checkpoints, ignore_errors=True)
    session.execute(delete(Checkpoint).where(Checkpoint.job_id == job_id))
