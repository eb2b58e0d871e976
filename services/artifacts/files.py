"""What lies in a job's folder, by name: listed, and resolved only if listed, so that no name can lead elsewhere."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from xsam.services.artifacts.layout import JobFolder
from xsam.services.errors import NotFoundError


class ArtifactKind(StrEnum):
    """What a file is good for."""

    WEIGHTS = "weights"
    """Parameters and buffers as safetensors: of the best epoch, or of the last."""
    CHECKPOINT = "checkpoint"
    """Part of a checkpoint, from which the job itself goes on."""
    LOG = "log"
    """What a rank printed."""


_PATTERNS = {
    ArtifactKind.WEIGHTS: "weights/*.safetensors",
    ArtifactKind.CHECKPOINT: "checkpoints/step-*/*",
    ArtifactKind.LOG: "attempts/*/logs/rank-*.log*",
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
