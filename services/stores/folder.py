"""The artifact store as a folder that all nodes share."""

import io
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from xsam.services.errors import StorageError

Put = Callable[[str, IO[bytes]], None]
"""Stores a file's content by a name."""
_TRASH = "trash"
"""Folder beside those of jobs and bundles: what lies in it is being deleted, and nothing refers to it."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of the artifact store.

    Args:
        name: its parts below the store's root, with `/`.
        size_bytes: at the time of the listing; a log still grows.
        modified_at: last change.
        version: of a single file that was asked for: another one after each change, where the store tells.
    """

    name: str
    size_bytes: int
    modified_at: datetime
    version: str = ""


class FolderStore:
    """Files below a root; see `xsam.services.stores.store.ArtifactStore`.

    Args:
        root: made when something is stored.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def name(self) -> str:
        """How people know it."""
        return str(self._root)

    def list(self, prefix: str = "") -> Iterator[StoredFile]:
        """Yield the files below `prefix` by name; links are no files, and what vanishes meanwhile is left out."""
        found = []
        for parent, _, names in os.walk(self._root / prefix):
            for name in names:
                path = Path(parent, name)
                with suppress(FileNotFoundError):
                    if path.is_file() and not path.is_symlink():
                        found.append(self.stat(path.relative_to(self._root).as_posix()))
        yield from sorted(found, key=lambda one: one.name)

    def names(self, prefix: str) -> Sequence[str]:
        """Return the names right below `prefix`."""
        with suppress(FileNotFoundError, NotADirectoryError):
            return sorted(path.name for path in (self._root / prefix).iterdir())
        return []

    def stat(self, name: str) -> StoredFile:
        """Return what a file is now."""
        status = (self._root / name).lstat()
        return StoredFile(name, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading."""
        return (self._root / name).open("rb")

    def path(self, name: str) -> Path | None:
        """Return where a file lies on this machine."""
        return self._root / name

    def local(self, prefix: str) -> Path:
        """Return the folder itself."""
        return self._root / prefix

    def put(self, name: str, source: Path) -> None:
        """Store a copy of a file."""
        with source.open("rb") as file:
            self._put(name, file)

    def put_bytes(self, name: str, content: bytes) -> None:
        """Store a content."""
        self._put(name, io.BytesIO(content))

    def get(self, name: str, target: Path) -> None:
        """Copy a file."""
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = _beside(target)
        try:
            shutil.copyfile(self._root / name, temporary)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def delete(self, prefix: str) -> None:
        """Delete a file, or a folder with all that is in it."""
        path = self._root / prefix
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def set_aside(self, prefix: str) -> None:
        """Move a file or folder into the trash: that takes no longer for large ones."""
        self._throw_away(prefix)

    def delete_if_old(self, name: str, *, older_than_s: float) -> None:
        """Move a file into the trash, and back if it turns out to be younger."""
        path = self._root / name
        if _is_older(path, older_than_s):
            aside = self._throw_away(name)
            if aside is not None and not _is_older(aside, older_than_s):
                aside.replace(path)

    def empty_trash(self) -> None:
        """Delete what was moved into the trash, also by a process that did not live to do so."""
        for name in self.names(_TRASH):
            self.delete(f"{_TRASH}/{name}")

    def room(self) -> tuple[int, int]:
        """Return how large its disk is and how much of that is free, in bytes."""
        self._root.mkdir(parents=True, exist_ok=True)
        disk = shutil.disk_usage(self._root)
        return disk.total, disk.free

    @contextmanager
    def filled(self) -> Iterator[Put]:
        """Yield what stores files that are all there when the block ends, or none."""
        files = FolderStore(self._root.with_name(self._root.name + ".restoring"))
        files.delete("")
        files._root.mkdir(parents=True)
        yield files._put
        if self._root.exists():
            self._root.rmdir()
        files._root.rename(self._root)

    def _throw_away(self, name: str) -> Path | None:
        path = self._root / name
        trash = self._root / _TRASH / f"{secrets.token_hex(8)}-{path.name}"
        trash.parent.mkdir(parents=True, exist_ok=True)
        try:
            return path.rename(trash)
        except FileNotFoundError:
            return None

    def _put(self, name: str, source: IO[bytes]) -> None:
        target = self._root / checked(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = _beside(target)
        try:
            with temporary.open("wb") as file:
                shutil.copyfileobj(source, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


def checked(name: str) -> str:
    """Return a name that leads nowhere else.

    Raises:
        StorageError: it is none.
    """
    path = PurePosixPath(name)
    if path.as_posix() != name or path.is_absolute() or ".." in path.parts or not path.parts:
        raise StorageError(f"an artifact's name is {name[:200]!r}; allowed are relative paths without `..`")
    return name


def _is_older(path: Path, seconds: float) -> bool:
    with suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime > seconds
    return False


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}-{secrets.token_hex(6)}")
