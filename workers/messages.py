"""What crosses Ray between dispatchers, runners and ranks. Light: whoever gets an actor's handle loads this too."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from xsam.services.jobs.states import FailureKind
from xsam.services.metrics.records import AlphaRecord, CheckpointRecord, EpochRecord, PlaneRecord
from xsam.services.stores.store import StorePlace
from xsam.workers.environments.store import EnvironmentStore

if TYPE_CHECKING:  # whoever gets a handle loads this module, and needs none of pydantic for that
    from xsam.services.settings import LogSettings, SchedulingSettings, TrackerSettings
    from xsam.services.specs.job import JobSpec

MAX_SENTENCE_CHARS = 500
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True)
class RunnerConfig:
    """What a runner needs of the settings; passed in a call, never in a file, since the URL holds a password."""

    database_url: str = field(repr=False)
    place: StorePlace
    """Where artifacts lie."""
    dataset_root: Path
    model_root: Path
    code_root: Path
    """Folder of a node in which bundles are unpacked."""
    environments: EnvironmentStore
    allow_download: bool
    allowed_packages: tuple[str, ...]
    lease_s: float
    is_cpu_only: bool
    """Jobs with GPUs train on the CPU as well."""
    scheduling: "SchedulingSettings"
    """By which what an attempt used is counted."""
    first_user_id: int | None
    """Ranks run as the user with this id plus their team's number; None: as Ray's."""
    trackers: "TrackerSettings"
    """What else is told what jobs measure."""
    logs: "LogSettings"
    """How the runner's own log lines look."""
    secret_keys: tuple[str, ...] = field(default=(), repr=False)
    """The operator's, with which secrets of teams are opened."""


class RunnerOutcome(StrEnum):
    """What the dispatcher has to know of an ended run; the rows say the rest."""

    RANKS_CLEAN = "ranks_clean"
    """The rank processes can take another job."""
    RANKS_SPENT = "ranks_spent"
    """The rank processes must not be used again."""
    DEVICES_FAILED = "devices_failed"
    """Likewise, and the GPUs are not to be used again before somebody has looked at them."""


@dataclass(frozen=True, slots=True)
class DeviceFinding:
    """What a node's GPUs are and can do."""

    fault: str | None
    """Why nothing can train on them; None if it can."""
    gpu_memory_gb: float = 0.0
    """Of the smallest, in 10^9 bytes; 0 where nobody can tell."""


@dataclass(frozen=True, slots=True)
class RankContext:
    """One rank's process: what the loop has to know that the job's specification does not say.

    The process group is already initialised where `world_size` is above 1.
    """

    rank: int
    world_size: int
    device: str
    """`cpu`, or `cuda:0`: a rank sees no GPUs but its own."""
    dataset_root: Path | None
    """Folder below which every dataset that is read from files must lie; None where there is none."""
    checkpoint_dir: Path
    """The job's checkpoint folder, on storage that all ranks share or, with a bucket, in the node's scratch folder;
    weights go to `weights` beside it."""
    bucket: StorePlace | None = None
    """Where checkpoints and weights are mirrored; None where all nodes share the folder."""
    model_root: Path | None = None
    """Folder below which pretrained weights must lie; None where there is none."""
    allow_download: bool = False
    """Whether torchvision may download a missing dataset."""
    allowed_packages: tuple[str, ...] = ()
    """Top-level packages from which a `target` may be imported."""
    code_dir: Path | None = None
    """Folder of the job's own code on this node, in front of `sys.path`; None where it brings none."""
    num_threads: int = 1
    """CPU threads for torch; image decoding gets as many processes less one.

    It decides the order in which floats are added up, so bit-equal runs need the same number.
    """


@dataclass(frozen=True, slots=True)
class Assignment:
    """One rank's part of a job's attempt."""

    job_id: str
    attempt: int
    spec: "JobSpec"
    context: RankContext
    log_dir: Path
    master_address: str = ""
    """`HOST:PORT` of rank 0's rendezvous; empty for one rank and in a managed worker group."""
    place: StorePlace | None = None
    """Where artifacts lie."""
    code_file: str | None = None
    """Name there of the bundle of the job's own code; None where it brings none."""
    code_root: Path | None = None
    """Folder of a node in which bundles are unpacked."""
    lock: str | None = None
    """Packages that the job's own code needs besides; None where it needs none."""
    environments: EnvironmentStore | None = None
    visible_devices: str = ""
    """The value of CUDA_VISIBLE_DEVICES in this rank; left alone in a managed worker group."""
    looked_at: Path | None = None
    """Of a job that looks at another one: that one's checkpoint folder."""
    planes: tuple[PlaneRecord, ...] = ()
    """What earlier attempts of such a job have stored."""
    is_judged: bool = False
    """Whether the runner says after each epoch if the run goes on: a trial that an early stopper watches."""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Environment variables for the job's code; Ray Train shows an assignment to whoever looks, by its repr."""
    team_user: int | None = None
    """User and group that the rank becomes before it touches anything of the job; None: it stays Ray's."""


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """A job's own code, to be tried before the job is queued."""

    spec: "JobSpec"
    dataset_root: Path
    model_root: Path
    place: StorePlace
    """Where artifacts lie."""
    code_file: str | None
    """Name there of the bundle; None where it brings none."""
    code_root: Path
    """Folder of a node in which bundles are unpacked."""
    allowed_packages: tuple[str, ...]
    lock: str | None
    """Packages that it needs besides; None where it needs none."""
    environments: EnvironmentStore
    team_user: int | None = None
    """As in an assignment."""


class StopReason(StrEnum):
    """Why a run stops before its last epoch: somebody's wish (the values are those of `Wish`), or an early stopper."""

    PAUSE = "pause"
    PREEMPT = "preempt"
    CANCEL = "cancel"
    EARLY = "early"

    @property
    def is_final(self) -> bool:
        """Whether the run will not go on, so that the epoch it is in need not be evaluated."""
        return self in (StopReason.CANCEL, StopReason.EARLY)


@dataclass(frozen=True, slots=True)
class StartedRecord:
    """Everything is built and, where there was a checkpoint, restored; the first step comes next."""

    steps_per_epoch: int
    first_step: int
    """Counted from 1 over the whole run."""
    first_epoch: int
    """Counted from 1."""
    num_parameters: int
    environment: dict[str, str] = field(default_factory=dict)
    """Versions and hardware; the rank's process adds it."""


@dataclass(frozen=True, slots=True)
class FirstStep:
    """The first optimizer step of this attempt has finished."""


@dataclass(frozen=True, slots=True)
class ProgressRecord:
    """The position inside an epoch."""

    epoch: int
    """The running one, from 1."""
    step: int
    loss: float
    """Rank 0's mean since the last report."""


@dataclass(frozen=True, slots=True)
class GpuUse:
    """What GPUs of a run did at one moment: a rank's own, or those of all ranks."""

    rank: int
    """The first one of those that this is about."""
    utilization: float
    """Mean over them of the part of the last moments in which anything ran there, 0 to 1."""
    busiest: float
    """The same of the one that does most."""
    used_bytes: int
    """Of their memory, in sum, by whatever process."""
    total_bytes: int


Report = (
    StartedRecord | FirstStep | ProgressRecord | EpochRecord | AlphaRecord | CheckpointRecord | PlaneRecord | GpuUse
)
"""One thing that rank 0 (of its GPUs, every rank) tells its runner; its class says which."""


@dataclass(frozen=True, slots=True)
class RankResult:
    """How a rank ended. Exceptions are turned into values where they are raised, so none has to cross Ray."""

    rank: int
    summary: dict[str, Any] | None = None
    stopped_by: StopReason | None = None
    failure_kind: FailureKind | None = None
    message: str = ""
    traceback: str = ""
    is_device_failure: bool = False
    """A GPU failed, not what ran on it."""
    is_echo: bool = False
    """The failure looks like the effect of another rank's (a collective that lost its peer)."""

    @classmethod
    def died(cls, rank: int, error: BaseException) -> Self:
        """Return the result of a rank that could say nothing itself."""
        message = f"rank {rank} died: {sentence(error)}"
        return cls(rank, failure_kind=FailureKind.INFRASTRUCTURE, message=message, traceback=str(error))


def explain(results: Sequence[RankResult]) -> RankResult | None:
    """Return the result that speaks for the run: the first cause of a failure, or else that of the first rank."""
    failures = [result for result in results if result.failure_kind is not None]
    if failures:
        return min(failures, key=lambda result: (result.is_echo, result.rank))
    return min(results, key=lambda result: result.rank, default=None)


def sentence(error: BaseException) -> str:
    """Return the last line of an error of Ray's, which names the cause, without terminal colours."""
    lines = [line.strip() for line in _COLOUR.sub("", str(error)).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:MAX_SENTENCE_CHARS]
