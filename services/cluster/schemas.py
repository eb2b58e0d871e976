"""What the API shows of the cluster."""

from datetime import datetime

from xsam.services.schemas import Read


class DispatcherRead(Read):
    """A process that places jobs."""

    id: str
    started_at: datetime
    seen_at: datetime
    is_leader: bool
    """Of several, only the leader places jobs."""


class Occupant(Read):
    """A job on a node. Of other teams' jobs only the team and the size are shown."""

    job_id: str | None
    user: str | None
    team: str
    num_workers: int
    """Workers on this node."""
    num_gpus: float
    num_cpus: float
    since: datetime


class ForeignRead(Read):
    """What Ray holds on a node for none of the service's running jobs: other people's work, or a leak."""

    what: str
    num_gpus: float
    num_cpus: float


class NodeRead(Read):
    """A machine as last seen."""

    id: str
    host: str
    is_alive: bool
    seen_at: datetime
    num_gpus: float
    num_cpus: float
    used_gpus: float
    used_cpus: float
    jobs: list[Occupant]
    foreign: list[ForeignRead]
    """What Ray holds there besides; jobs are placed around it."""
    set_aside: str | None
    """Why no job gets its GPUs; null while they work, as far as is known."""


class ClusterRead(Read):
    """The machines as last seen, and what runs where; true to the second while a dispatcher is alive."""

    is_live: bool
    """A dispatcher reported a moment ago; otherwise everything is as it was when one last did."""
    seen_at: datetime | None
    """When the newest report came; null before the first."""
    num_gpus: float
    num_cpus: float
    used_gpus: float
    used_cpus: float
    nodes: list[NodeRead]
    """Those alive first."""
    dispatchers: list[DispatcherRead]
