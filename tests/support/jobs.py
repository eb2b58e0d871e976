"""Jobs for tests, made through the same calls as everybody's, each call in a transaction of its own."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import text, update

from xsam.services.db.clock import db_now
from xsam.services.db.session import Database
from xsam.services.jobs import events, queue, service, stalled
from xsam.services.jobs.models import Job, JobAttempt
from xsam.services.jobs.queue import ClaimedJob, Lease
from xsam.services.jobs.stalled import Patience
from xsam.services.jobs.states import JobState
from xsam.services.specs.job import JobSpec
from xsam.services.teams.roles import Actor

ALICE = Actor(user="alice", team="red")
BOB = Actor(user="bob", team="blue")
LEASE_S = 60.0


def submit(database: Database, *, actor: Actor = ALICE, **fields: Any) -> str:
    """Queue a job with these fields of its specification and return its id."""
    with database.unit_of_work() as session:
        job, _ = service.submit(session, JobSpec.model_validate(fields), actor=actor)
        return job.id


def try_claim(database: Database, job_id: str, *, lease_s: float = LEASE_S) -> ClaimedJob | None:
    """Claim a job, or return None where somebody else was faster or it is not due."""
    with database.unit_of_work() as session:
        return queue.claim(session, job_id, runner="runner-1", lease_s=lease_s, placement=["node-1"])


def claim(database: Database, job_id: str, *, lease_s: float = LEASE_S) -> Lease:
    """Claim a job that must be free and return its lease."""
    claimed = try_claim(database, job_id, lease_s=lease_s)
    assert claimed is not None
    return claimed.lease


def submit_and_claim(database: Database, **fields: Any) -> Lease:
    """Queue a job and start its first attempt."""
    return claim(database, submit(database, **fields))


def read(database: Database, job_id: str) -> Job:
    """Return the job's row as it is now."""
    with database.read() as session:
        return service.get(session, job_id)


def state(database: Database, job_id: str) -> JobState:
    """Return the job's state as it is now."""
    return JobState(read(database, job_id).state)


def attempts(database: Database, job_id: str) -> Sequence[JobAttempt]:
    """Return the job's attempts, oldest first."""
    with database.read() as session:
        return session.query(JobAttempt).filter_by(job_id=job_id).order_by(JobAttempt.number).all()


def event_kinds(database: Database, job_id: str) -> list[str]:
    """Return the kinds of the job's events, oldest first."""
    with database.read() as session:
        return [event.kind for event in events.list_events(session, job_id)]


PATIENCE = Patience(stop_s=30, silence_s=600, run_s=86_400, queue_s=2 * 86_400, pause_s=3 * 86_400)


def reap(database: Database, patience: Patience = PATIENCE, **options: int) -> list[Lease]:
    """Let the reaper act, if it says that there is work, and return the leases that ended."""
    with database.read() as session:
        if not stalled.has_due(session, patience):
            return []
    with database.unit_of_work() as session:
        return stalled.reap(session, patience, **options)


def let_lease_expire(database: Database, job_id: str) -> None:
    """Move the job's lease into the past, as time would."""
    set_columns(database, job_id, lease_expires_at=db_now(-1))


def make_due(database: Database, job_id: str) -> None:
    """Let a back-off pass."""
    set_columns(database, job_id, scheduled_at=db_now(-1))


def set_columns(database: Database, job_id: str, **values: Any) -> None:
    """Write columns of a job behind everybody's back, to move its times."""
    with database.unit_of_work() as session:
        session.execute(update(Job).where(Job.id == job_id).values(**values))


def shift_attempt(database: Database, lease: Lease, *, started_s_ago: float) -> None:
    """Let a running attempt have started some time ago."""
    with database.unit_of_work() as session:
        where = (JobAttempt.job_id == lease.job_id, JobAttempt.number == lease.attempt)
        session.execute(update(JobAttempt).where(*where).values(started_at=db_now(-started_s_ago)))


def count(database: Database, table: str) -> int:
    """Return how many rows a table has."""
    with database.read() as session:
        return int(session.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())
