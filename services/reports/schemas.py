"""What the API shows of decisions, the queue and why a job stands where it does; and of the service as a whole."""

from datetime import datetime

from pydantic import Field

from xsam.services.jobs.states import JobState
from xsam.services.scheduling.policy.reasons import Holding, Request, Shortage, Standing
from xsam.services.schemas import Read


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
    """Place in the queue, from 1; null where the job is not in it, or beyond the part that is kept in order."""
    num_in_line: int | None = None
    request: Request
    shortage: Shortage | None = None
    blocking_job_ids: list[str] = Field(default_factory=list)
    """Jobs in the way: the largest holders, the quota's users, whom the room is kept for, or who makes room."""
    holdings: list[Holding] = Field(default_factory=list)
    """Who holds the cluster, largest first."""
    standing: Standing | None = None
    estimated_start_at: datetime | None = None
    is_lower_bound: bool = False
    """The estimate counts running jobs only, not the queue ahead: it can be later, not earlier."""
    eligible_at: datetime | None = None
    """Not before this instant (a back-off)."""


class QueueEntry(Read):
    """One job in the queue. Of other teams' jobs only the place, the team and the request are shown."""

    position: int
    job_id: str | None
    name: str | None
    team: str
    user: str | None
    priority: int
    request: Request
    code: str
    """What stops it."""
    queued_since: datetime
    attempt: int
    """The attempt that waits."""


class PromiseRead(Read):
    """Nodes that are kept for a waiting job. Of other teams' jobs only the team is shown."""

    job_id: str | None
    name: str | None
    team: str
    node_ids: list[str]
    starts_at: datetime | None
    """When it will start at the latest, as far as running jobs' ends are known; null where too few are."""


class QueueRead(Read):
    """The line as of the last decision, first first."""

    as_of: datetime | None
    """Null before the first decision."""
    num_queued: int
    """Jobs in the queue, those that are not in line (held back, infeasible) included."""
    items: list[QueueEntry]
    promises: list[PromiseRead] = Field(default_factory=list)
    """What is kept for whom."""
    next_position: int | None
    """Pass it as `after` for the next page; null on the last. Only the head of a long line is kept in order."""


class LeaderRead(Read):
    """The dispatcher that places jobs."""

    id: str
    since: datetime


class RayRead(Read):
    """Ray's cluster, as a dispatcher sees it."""

    is_live: bool
    """A dispatcher, which lives by Ray, gave a sign of life a moment ago."""
    seen_at: datetime | None
    """When one last did."""
    num_nodes: int
    num_gpus: float
    num_cpus: float


class DatabaseRead(Read):
    """The database."""

    kind: str
    """`sqlite` or `postgresql`."""
    migration: str | None
    """The newest that was applied."""
    newest_migration: str
    """The newest of this release."""
    is_current: bool


class StatusRead(Read):
    """The service as a whole."""

    version: str
    at: datetime
    """By the database's clock."""
    leader: LeaderRead | None
    """Null while none leads: jobs are kept, and nothing starts."""
    num_dispatchers: int
    """Those alive, standbys included."""
    ray: RayRead
    database: DatabaseRead


class NamedRead(Read):
    """A job or a study."""

    id: str
    name: str | None


class ReachedRead(Read):
    """A limit of the team's quota that its running jobs use up."""

    what: str
    """`gpus`, `cpus` or `running_jobs`."""
    gpu_kind: str | None
    """Of the GPUs, in lower case, where the limit is one of a kind."""
    limit: float
    held: float


class AttentionRead(Read):
    """What the caller's team, or the caller, should look at; empty where nothing is the matter."""

    stalled: list[NamedRead]
    """Jobs that run and have reported nothing for long, the longest first."""
    idle: list[NamedRead]
    """Jobs that hold GPUs and do not use them, the longest first; where somebody wants that looked at."""
    idle_paused: list[NamedRead]
    """Jobs that were paused because they held idle GPUs again and again, oldest first."""
    paused: list[NamedRead]
    """Studies that somebody has paused and nobody resumed, oldest first."""
    reached: list[ReachedRead]
    token_expires_at: datetime | None
    """Of the caller's token, where it is soon."""

    @property
    def is_needed(self) -> bool:
        """Whether there is anything."""
        jobs = (*self.stalled, *self.idle, *self.idle_paused, *self.paused)
        return bool(jobs or self.reached or self.token_expires_at)
