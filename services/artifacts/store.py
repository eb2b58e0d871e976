"""The artifact store: one folder per job below the root, shared by all nodes, and what lies in it, by name.

Files are listed, and resolved only if listed, so that no name can lead elsewhere.
"""

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from xsam.services.errors import NotFoundError, StorageError

TENSORBOARD = "tensorboard"
"""Folder of a job's event files."""
_JOB_ID = re.compile(r"[a-z0-9]{1,32}")


@dataclass(frozen=True, slots=True)
class JobFolder:
    """The folder of one job. Building it touches no file.

    Args:
        root: the artifact root.
        job_id: checked, so that no id can lead out of the root.

    Raises:
        StorageError: the id is not one of ours.
    """

    root: Path
    job_id: str

    def __post_init__(self) -> None:
        if not _JOB_ID.fullmatch(self.job_id):
            raise StorageError(f"job id is {self.job_id!r}; allowed are lower-case letters and digits")

    @property
    def path(self) -> Path:
        """The job's own folder."""
        return self.root / "jobs" / self.job_id

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
    ArtifactKind.WEIGHTS: "weights/*.safetensors",
    ArtifactKind.CHECKPOINT: "checkpoints/step-*/*",
    ArtifactKind.LOG: "attempts/*/logs/rank-*.log*",
    ArtifactKind.TENSORBOARD: f"{TENSORBOARD}/events.*",
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


CHECKPOINTS, WEIGHTS = "checkpoints", "weights"
_TRASH = "trash"
"""Folder beside those of jobs and bundles: what lies in it is being deleted, and nothing refers to it."""


def measure(folder: JobFolder) -> FolderBytes:
    """Return how large a job's files are; what vanishes meanwhile is not counted."""
    sizes = dict.fromkeys((CHECKPOINTS, WEIGHTS, ""), 0)
    for parent, _, names in os.walk(folder.path):
        part = Path(parent).relative_to(folder.path).parts[:1]
        kind = part[0] if part and part[0] in sizes else ""
        for name in names:
            with suppress(FileNotFoundError):
                sizes[kind] += os.lstat(os.path.join(parent, name)).st_size
    return FolderBytes(sizes[CHECKPOINTS], sizes[WEIGHTS], sizes[""])


def set_aside(folder: JobFolder, *, checkpoints: bool, weights: bool, logs: bool) -> list[Path]:
    """Move parts of a job's folder to where they can be deleted at leisure; takes no longer for large ones."""
    with suppress(FileNotFoundError):
        wanted = [
            path for path in folder.path.iterdir() if {CHECKPOINTS: checkpoints, WEIGHTS: weights}.get(path.name, logs)
        ]
        return [moved for path in wanted if (moved := throw_away(folder.root, path)) is not None]
    return []


def throw_away(root: Path, path: Path) -> Path | None:
    """Move a file or folder of the store into its trash and return where it is; None if it is not there."""
    trash = root / _TRASH / f"{secrets.token_hex(8)}-{path.name}"
    trash.parent.mkdir(parents=True, exist_ok=True)
    try:
        return path.rename(trash)
    except FileNotFoundError:
        return None


def empty_trash(root: Path) -> None:
    """Delete what was moved into the trash, also by a process that did not live to do so."""
    with suppress(FileNotFoundError):
        for path in list((root / _TRASH).iterdir()):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def list_files(folder: JobFolder) -> list[ArtifactFile]:
    """Return the job's files by kind and name; none before its first attempt."""
    return [file for kind, pattern in _PATTERNS.items() for file in _matching(folder.path, kind, pattern)]


def resolve(folder: JobFolder, name: str) -> Path:
    """Return the path of a listed file.

    Raises:
        NotFoundError: the job has no such file.
    """
    if any(file.name == name for file in list_files(folder)):
        return folder.path / name
    raise NotFoundError(f"job {folder.job_id} has no artifact {name[:200]!r}", field="name")


def _matching(root: Path, kind: ArtifactKind, pattern: str) -> Iterator[ArtifactFile]:
    for path in sorted(root.glob(pattern)):
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue  # retention was faster
        if path.is_symlink() or not path.is_file():
            continue
        modified_at = datetime.fromtimestamp(status.st_mtime, UTC)
        yield ArtifactFile(path.relative_to(root).as_posix(), kind, status.st_size, modified_at)
