"""One verb on several jobs: every job gets its own result, and one that refuses stops none of the others."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy import select
from sqlalchemy.orm import Session

from xsam.services.errors import NotFoundError, ServiceError
from xsam.services.jobs import verbs
from xsam.services.jobs.listing import JobFilter, list_jobs
from xsam.services.jobs.models import KIND_STUDY, Job
from xsam.services.jobs.schemas import BulkCount, BulkItem, BulkRead, JobUpdate
from xsam.services.jobs.service import get, team_of
from xsam.services.jobs.states import JobState
from xsam.services.teams.roles import Actor

MAX_JOBS = 1000
"""A call works on so many jobs at most; a filter that matches more says so, and the call can be repeated."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which jobs: those named, or else those that match.

    Args:
        ids: the jobs.
        where: the filter, where there are no ids.
        visible_team: the only team whose jobs exist for the caller; None for all.
    """

    ids: Sequence[str] = ()
    where: JobFilter = field(default_factory=JobFilter)
    visible_team: str | None = None


def cancel(session: Session, selection: Selection, *, actor: Actor) -> BulkRead:
    """Cancel jobs."""
    return _each(session, selection, lambda job_id: verbs.cancel(session, job_id, actor=actor))


def pause(session: Session, selection: Selection, *, actor: Actor) -> BulkRead:
    """Hold jobs."""
    return _each(session, selection, lambda job_id: verbs.pause(session, job_id, actor=actor))


def resume(session: Session, selection: Selection, *, actor: Actor) -> BulkRead:
    """Put held jobs back in the queue."""
    return _each(session, selection, lambda job_id: verbs.resume(session, job_id, actor=actor))


def retry(session: Session, selection: Selection, *, actor: Actor) -> BulkRead:
    """Queue failed and cancelled jobs again."""
    return _each(session, selection, lambda job_id: verbs.retry(session, job_id, actor=actor))


def update(session: Session, selection: Selection, change: JobUpdate, *, actor: Actor) -> BulkRead:
    """Change priority and labels of jobs."""
    return _each(session, selection, lambda job_id: verbs.update(session, job_id, change, actor=actor))


def count(session: Session, selection: Selection) -> BulkRead:
    """Say which jobs a verb would be tried on, without changing anything."""
    job_ids, has_more = _chosen(session, selection)
    query = select(Job.id, Job.team, Job.state, Job.submitted_by).where(Job.id.in_(job_ids), Job.kind != KIND_STUDY)
    found = [row for row in session.execute(query) if selection.visible_team in (None, row.team)]
    counted = BulkCount(
        num=len(found),
        num_by_state=dict(Counter(JobState(row.state) for row in found).most_common()),
        num_by_user=dict(Counter(row.submitted_by for row in found).most_common()),
    )
    return BulkRead(items=[], has_more=has_more, would=counted)


def _each(session: Session, selection: Selection, act: Callable[[str], Job]) -> BulkRead:
    job_ids, has_more = _chosen(session, selection)
    # In order of ids, so that two such calls lock the rows they share in the same order.
    results = {job_id: _one(session, job_id, selection, act) for job_id in sorted(job_ids)}
    return BulkRead(items=[results[job_id] for job_id in job_ids], has_more=has_more)


def _chosen(session: Session, selection: Selection) -> tuple[list[str], bool]:
    if selection.ids:
        return list(dict.fromkeys(selection.ids)), False
    where = selection.where
    if selection.visible_team is not None:
        where = replace(where, team=selection.visible_team)
    page, cursor, _ = list_jobs(session, where=where, limit=MAX_JOBS)
    return [job.id for job in page], cursor is not None


def _one(session: Session, job_id: str, selection: Selection, act: Callable[[str], Job]) -> BulkItem:
    try:
        if selection.visible_team not in (None, team_of(session, job_id)):
            raise NotFoundError(f"no job {job_id}", field="job_id")
        get(session, job_id)
        with session.begin_nested():
            return BulkItem(job_id=job_id, is_done=True, state=JobState(act(job_id).state))
    except NotFoundError as e:
        return BulkItem(job_id=job_id, is_done=False, state=None, code=e.code, message=e.message)
    except ServiceError as e:
        state = session.scalar(select(Job.state).where(Job.id == job_id))
        return BulkItem(job_id=job_id, is_done=False, state=state, code=e.code, message=e.message)
