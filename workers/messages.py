"""What crosses Ray between a runner and its ranks: plain values, so that any process can read them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xsam.services.jobs.states import FailureKind

if TYPE_CHECKING:  # whoever gets a handle loads this module, and needs none of pydantic for that
    from xsam.services.settings import SchedulingSettings


@dataclass(frozen=True, slots=True)
class Assignment:
    """One rank's part of a job's attempt."""

    job_id: str
    attempt: int
    spec: dict[str, Any]
    rank: int
    world_size: int
    checkpoint_dir: Path
    log_dir: Path
    dataset_root: Path
    allow_download: bool
    allowed_packages: tuple[str, ...]
    master_address: str = ""
    """`HOST:PORT` of rank 0's rendezvous; empty for one rank and in a managed worker group."""
    is_judged: bool = False
    """Whether the runner says after each epoch if the run goes on: a trial that an early stopper watches."""


@dataclass(frozen=True, slots=True)
class Report:
    """One thing a rank 0 tells its runner; `kind` names the method of `Telemetry`."""

    kind: str
    payload: Any = None


@dataclass(frozen=True, slots=True)
class RankResult:
    """How a rank ended. Exceptions are turned into values where they are raised, so none has to cross Ray."""

    rank: int
    summary: dict[str, Any] | None = None
    stopped_by: str | None = None
    failure_kind: FailureKind | None = None
    message: str = ""
    traceback: str = ""
    is_echo: bool = False
    """The failure looks like the effect of another rank's (a collective that lost its peer)."""


def explain(results: Sequence[RankResult]) -> RankResult | None:
    """Return the result that speaks for the run: the first cause of a failure, or else that of the first rank."""
    failures = [result for result in results if result.failure_kind is not None]
    if failures:
        return min(failures, key=lambda result: (result.is_echo, result.rank))
    return min(results, key=lambda result: result.rank, default=None)


@dataclass(frozen=True, slots=True)
class RunnerConfig:
    """What a runner needs of the settings; passed in a call, never in a file, since the URL holds a password."""

    database_url: str = field(repr=False)
    artifact_root: Path
    dataset_root: Path
    allow_download: bool
    allowed_packages: tuple[str, ...]
    lease_s: float
    scheduling: "SchedulingSettings"
    """By which what an attempt used is counted."""
