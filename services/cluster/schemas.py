"""What the API shows of the cluster."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

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


class CordonWrite(BaseModel):
    """How a node is set apart."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    reason: Annotated[str, StringConstraints(max_length=300)] | None = None
    """For people."""
    drain_within_s: Annotated[float, Field(strict=True, ge=0, le=31_622_400)] | None = None
    """Jobs that still run there after so long save their state and go back to the queue; null lets them finish."""


class CordonRead(Read):
    """Why a node takes no new jobs."""

    node: str
    """Its host or Ray id, as it was named; `*` for all of them."""
    reason: str | None
    set_by: str
    since: datetime
    drain_at: datetime | None
    """When jobs that still run there are asked to move; null lets them finish."""


class NodeRead(Read):
    """A machine as last seen."""

    id: str
    host: str
    is_alive: bool
    seen_at: datetime
    num_gpus: float
    gpu_kind: str | None
    """What its GPUs are, as Ray names them; `resources.gpu_kind` of a job asks for one."""
    gpu_memory_gb: float | None
    """Of each of them, of the smallest, in 10^9 bytes; null where nobody knows."""
    labels: dict[str, str]
    """As Ray has them; `resources.node_labels` of a job asks for some."""
    num_cpus: float
    used_gpus: float
    used_cpus: float
    jobs: list[Occupant]
    foreign: list[ForeignRead]
    """What Ray holds there besides; jobs are placed around it."""
    set_aside: str | None
    """Why no job gets its GPUs; null while they work, as far as is known."""
    cordon: CordonRead | None
    """Why it takes no new jobs; null where it does."""


class TeamBytes(Read):
    """What a team has in the artifact store."""

    team: str
    checkpoints: int = 0
    weights: int = 0
    logs: int = 0
    """What was printed, and everything else of a job."""
    bundles: int = 0
    total: int


class StoreRead(Read):
    """The disk of an artifact store, or the bucket."""

    root: str
    total_bytes: int
    """0, as what is free, of a bucket: nothing limits it."""
    free_bytes: int
    measured_at: datetime
    teams: list[TeamBytes]
    """The largest first. Of running jobs only checkpoints are counted."""


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
    maintenance: CordonRead | None
    """Why nothing new starts; null where jobs do."""
    nodes: list[NodeRead]
    """Those alive first."""
    dispatchers: list[DispatcherRead]
    stores: list[StoreRead]
    """Where jobs' files lie, and who has how much there; empty before a dispatcher has measured it."""
