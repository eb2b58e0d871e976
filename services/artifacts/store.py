"""What of a job lies in the artifact store, by name: one folder per job below `jobs`.

Files are listed, and found only if listed, so that no name can lead elsewhere.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from xsam.services.errors import NotFoundError, StorageError
from xsam.services.stores.store import ArtifactStore

TENSORBOARD = "tensorboard"
"""Folder of a job's event files."""
_JOB_ID = re.compile(r"[a-z0-9]{1,32}")


@dataclass(frozen=True, slots=True)
class JobFolder:
    """The folder of one job on this machine. Building it touches no file.

    Args:
        root: of the artifacts, or a node's scratch folder.
        job_id: checked, so that no id can lead out of the root.

    Raises:
        StorageError: the id is not one of ours.
    """

    root: Path
    job_id: str

    def __post_init__(self) -> None:
        prefix_of(self.job_id)

    @property
    def path(self) -> Path:
        """The job's own folder."""
        return self.root / JOBS / self.job_id

    @property
    def checkpoints(self) -> Path:
        """Checkpoints of all attempts: a later attempt goes on from an earlier one's."""
        return self.path / "checkpoints"

    def attempt(self, number: int) -> Path:
        """Folder of one attempt."""
        return self.path / "attempts" / str(number)

    def logs(self, attempt: int) -> Path:
        """Folder with one log file per rank."""
        return self.attempt(attempt) / "logs"


class ArtifactKind(StrEnum):
    """What a file is good for."""

    WEIGHTS = "weights"
    """Parameters and buffers as safetensors: of the best epoch, or of the last."""
    CHECKPOINT = "checkpoint"
    """Part of a checkpoint, from which the job itself goes on."""
    LOG = "log"
    """What a rank printed."""
    TENSORBOARD = "tensorboard"
    """Event files of an attempt; `tensorboard --logdir` reads their folder."""


_PATTERNS = {
    ArtifactKind.WEIGHTS: re.compile(r"weights/[^/]*\.safetensors"),
    ArtifactKind.CHECKPOINT: re.compile(r"checkpoints/step-[^/]*/[^/]*"),
    ArtifactKind.LOG: re.compile(r"attempts/[^/]*/logs/rank-[^/]*\.log[^/]*"),
    ArtifactKind.TENSORBOARD: re.compile(TENSORBOARD + r"/events\.[^/]*"),
}


@dataclass(frozen=True, slots=True)
class ArtifactFile:
    """A file of a job.

    Args:
        name: path below the job's folder, with `/`.
        kind: what it is.
        size_bytes: at the time of the listing; a log still grows.
        modified_at: last change.
    """

    name: str
    kind: ArtifactKind
    size_bytes: int
    modified_at: datetime


@dataclass(frozen=True, slots=True)
class FolderBytes:
    """What a job's folder holds."""

    checkpoints: int = 0
    weights: int = 0
    logs: int = 0
    """What was printed, and everything else."""


JOBS = "jobs"
CHECKPOINTS, WEIGHTS = "checkpoints", "weights"


def prefix_of(job_id: str, *parts: str) -> str:
    """Return the name of a job's folder in the store, or of what lies in it.

    Raises:
        StorageError: the id is not one of ours.
    """
    if not _JOB_ID.fullmatch(job_id):
        raise StorageError(f"job id is {job_id!r}; allowed are lower-case letters and digits")
    return "/".join((JOBS, job_id, *parts))


def log_prefix(job_id: str, attempt: int) -> str:
    """Return the name of the folder with an attempt's log, one file per rank."""
    return prefix_of(job_id, "attempts", str(attempt), "logs")


def measure(store: ArtifactStore, job_id: str) -> FolderBytes:
    """Return how large a job's files are; what vanishes meanwhile is not counted."""
    prefix = prefix_of(job_id)
    sizes = dict.fromkeys((CHECKPOINTS, WEIGHTS, ""), 0)
    for file in store.list(prefix):
        part = file.name.removeprefix(f"{prefix}/").split("/")[0]
        sizes[part if part in sizes else ""] += file.size_bytes
    return FolderBytes(sizes[CHECKPOINTS], sizes[WEIGHTS], sizes[""])


def set_aside(store: ArtifactStore, job_id: str, *, checkpoints: bool, weights: bool, logs: bool) -> None:
    """Take parts of a job's files out of the store."""
    for name in store.names(prefix_of(job_id)):
        if {CHECKPOINTS: checkpoints, WEIGHTS: weights}.get(name, logs):
            store.set_aside(prefix_of(job_id, name))


def list_files(store: ArtifactStore, job_id: str) -> list[ArtifactFile]:
    """Return the job's files by kind and name; none before its first attempt."""
    prefix = prefix_of(job_id)
    found = [(file.name.removeprefix(f"{prefix}/"), file) for file in store.list(prefix)]
    return [
        ArtifactFile(name, kind, file.size_bytes, file.modified_at)
        for kind, pattern in _PATTERNS.items()
        for name, file in found
        if pattern.fullmatch(name)
    ]


def find_file(store: ArtifactStore, job_id: str, name: str) -> ArtifactFile:
    """Return a listed file.

    Raises:
        NotFoundError: the job has no such file.
    """
    for file in list_files(store, job_id):
        if file.name == name:
            return file
    raise NotFoundError(f"job {job_id} has no artifact {name[:200]!r}", field="name")
