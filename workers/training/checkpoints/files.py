"""Files of one checkpoint: durable writes, digests, and the manifest that vouches for them."""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from xsam.workers.training.errors import CheckpointError

MANIFEST = "manifest.json"
FORMAT_VERSION = 2


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a checkpoint holds; the file's own digest stands for the whole checkpoint."""

    identity: dict[str, Any]
    """What must be equal for a run to go on from it."""
    progress: dict[str, Any]
    score: float | None
    """How good the epoch is, more is better, where the checkpoint was made at the end of one."""
    files: dict[str, str]
    """SHA-256 of each file, by name."""
    size_bytes: int


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file durably.

    Raises:
        OSError: the storage does not take it.
        CheckpointError: there is more in it than tensors.
    """
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise CheckpointError(f"the model's state {name} is a {type(tensor).__name__}; only tensors can be stored")
    # safetensors refuses tensors that share memory, as tied weights do; copies are stored twice and load equal.
    copies = {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}
    try:
        save_file(copies, path)
    except SafetensorError as e:
        raise OSError(f"{path.name}: {e}") from e
    _sync(path)


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write a torch file durably; it must hold only what loads with weights only.

    Raises:
        OSError: the storage does not take it.
    """
    try:
        torch.save(state, path)
    except RuntimeError as e:  # a full disk as torch tells of it
        raise OSError(f"{path.name} is cut off: {e}") from e
    _sync(path)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a content durably."""
    path.write_bytes(content)
    _sync(path)


def read_state(path: Path) -> dict[str, Any]:
    """Read a torch file to the CPU, with weights only."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def seal(folder: Path, manifest_of: dict[str, Any]) -> tuple[str, int]:
    """Write the manifest over all files of `folder`; return its digest and the checkpoint's size in bytes."""
    paths = sorted(path for path in folder.iterdir())
    size_bytes = sum(path.stat().st_size for path in paths)
    content = {
        "format": FORMAT_VERSION,
        **manifest_of,
        "files": {path.name: file_digest(path) for path in paths},
        "size_bytes": size_bytes,
    }
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps(content, indent=1, sort_keys=True))
    _sync(manifest)
    sync_folder(folder)
    return file_digest(manifest), size_bytes + manifest.stat().st_size


def read_manifest(folder: Path) -> Manifest:
    """Read a checkpoint's manifest.

    Raises:
        CheckpointError: it is missing, unreadable or of another format.
    """
    try:
        content = json.loads((folder / MANIFEST).read_text())
        version = content.pop("format")
        if version != FORMAT_VERSION:
            raise CheckpointError(f"{folder} has checkpoint format {version}; this version reads {FORMAT_VERSION}")
        return Manifest(**content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise CheckpointError(f"{folder} has no readable {MANIFEST}: {e}") from e


def verify(folder: Path) -> Manifest:
    """Return the manifest after comparing every file with it.

    Raises:
        CheckpointError: a file is missing or has other content.
    """
    manifest = read_manifest(folder)
    for name, expected in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{path} is missing")
        if file_digest(path) != expected:
            raise CheckpointError(f"{path} is damaged: its SHA-256 is not the manifest's")
    return manifest


def file_digest(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def replace_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Put a safetensors file at `path` in one move: a reader sees the old one or the new one."""
    temporary = _beside(path)
    try:
        write_tensors(temporary, tensors)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def replace_by_link(path: Path, source: Path) -> None:
    """Put another name of `source`, which is never written again, at `path` in one move."""
    temporary = _beside(path)
    temporary.unlink(missing_ok=True)
    try:
        temporary.hardlink_to(source)
    except OSError:
        # Some network storage has no hard links.
        shutil.copyfile(source, temporary)
    temporary.replace(path)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}")


def sync_folder(folder: Path) -> None:
    """Make renames and new names in a folder durable."""
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
