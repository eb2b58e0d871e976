"""What the doors show of decisions: the line, and why a job stands where it does."""

from datetime import datetime

from pydantic import Field

from xsam.services.jobs.states import JobState
from xsam.services.schemas import Read


class RequestRead(Read):
    """What a job asks for; all its workers start together, or none."""

    num_workers: int
    gpus_per_worker: float
    cpus_per_worker: float


class ShortageRead(Read):
    """What is missing. For quota codes the numbers are the team's, otherwise the cluster's; null is no limit."""

    gpus: float
    cpus: float
    running_jobs: int
    free_gpus: float | None
    free_cpus: float | None
    total_gpus: float | None
    total_cpus: float | None
    total_running_jobs: int | None
    workers_that_fit: int
    """Workers of this job that would find room now."""


class HoldingRead(Read):
    """What a team holds now."""

    team: str
    gpus: float
    cpus: float
    running_jobs: int


class StandingRead(Read):
    """The team's place in the fair share: below its part it goes first."""

    usage_fraction: float
    """The team's part of all usage, which counts half after each half-life, 0 to 1."""
    entitled_fraction: float
    """The team's part by weight among those that wait or run, 0 to 1."""
    holding: HoldingRead


class WhyRead(Read):
    """Why a job stands where it does: one sentence, and the numbers behind it."""

    job_id: str
    state: JobState
    code: str
    """Stable. Of a queued job: what stops it (`insufficient_resources`, `team_quota`, ...); otherwise its state."""
    sentence: str
    as_of: datetime | None = None
    """When the scheduler last decided; null where its decision does not matter."""
    position: int | None = None
    """Place in the line, from 1; null where the job is not in line, or beyond the part that is kept in order."""
    num_in_line: int | None = None
    request: RequestRead
    shortage: ShortageRead | None = None
    blocking_job_ids: list[str] = Field(default_factory=list)
    """Jobs in the way: the largest holders, the quota's users, whom the room is kept for, or who makes room."""
    holdings: list[HoldingRead] = Field(default_factory=list)
    """Who holds the cluster, largest first."""
    standing: StandingRead | None = None
    estimated_start_at: datetime | None = None
    is_lower_bound: bool = False
    """The estimate counts running jobs only, not the line ahead: it can be later, not earlier."""
    eligible_at: datetime | None = None
    """Not before this instant (a back-off)."""


class QueueEntry(Read):
    """One job in the line. Of other teams' jobs only the place, the team and the request are shown."""

    position: int
    job_id: str | None
    name: str | None
    team: str
    user: str | None
    priority: int
    request: RequestRead
    code: str
    """What stops it."""
    queued_since: datetime
    attempt: int
    """The attempt that waits."""


class QueueRead(Read):
    """The line as of the last decision, first first."""

    as_of: datetime | None
    """Null before the first decision."""
    num_queued: int
    """Jobs in the queue, those that are not in line (held back, infeasible) included."""
    items: list[QueueEntry]
    next_position: int | None
    """Pass it as `after` for the next page; null on the last. Only the head of a long line is kept in order."""
