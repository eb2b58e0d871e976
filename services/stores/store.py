"""The artifact store: a folder that all nodes share, or a bucket.

The layout is the same in both. With a bucket each node has a scratch folder of its own in that layout too; what lies
there counts for nobody else until it is in the bucket.
"""

import functools
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from xsam.services.stores.bucket import BucketStore
from xsam.services.stores.folder import FolderStore, Put, StoredFile


class ArtifactStore(Protocol):
    """Files by name, such as `jobs/ID/weights/best.safetensors`; names are relative and have `/`. Thread-safe.

    A file is stored whole or not at all; a reader sees the one before or the new one. A missing file is a
    FileNotFoundError; a store that does not do what it is asked an OSError or a StorageError.
    """

    @property
    def name(self) -> str:
        """How people know the store: its folder, or its address without credentials."""

    def list(self, prefix: str = "") -> Iterator[StoredFile]:
        """Yield the files below `prefix` by name; none where there is nothing."""

    def names(self, prefix: str) -> Sequence[str]:
        """Return the names right below `prefix`, of files and folders."""

    def stat(self, name: str) -> StoredFile:
        """Return what a file is now."""

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading, from any position."""

    def path(self, name: str) -> Path | None:
        """Return where a file lies on this machine; None where it does not."""

    def local(self, prefix: str) -> Path:
        """Return a folder of this machine that holds what lies below `prefix` now, for reading only."""

    def put(self, name: str, source: Path) -> None:
        """Store a copy of a file, in the place of the one before."""

    def put_bytes(self, name: str, content: bytes) -> None:
        """Store a content, in the place of the one before."""

    def get(self, name: str, target: Path) -> None:
        """Put a copy of a file at `target`; its folder is made if missing."""

    def delete(self, prefix: str) -> None:
        """Delete a file, or all below a prefix; nothing where there is nothing."""

    def set_aside(self, prefix: str) -> None:
        """Take a file, or all below a prefix, out of the store, as fast as that can be; `empty_trash` does the rest."""

    def delete_if_old(self, name: str, *, older_than_s: float) -> None:
        """Delete a file unless it was stored a short time ago, perhaps by somebody just now."""

    def empty_trash(self) -> None:
        """Delete what was set aside, also by a process that did not live to do so."""

    def filled(self) -> AbstractContextManager[Put]:
        """Return a block in which an empty store is filled: with all that is put, or nothing if the block fails."""

    def room(self) -> tuple[int, int]:
        """Return how many bytes it has room for and how many of them are free; both 0 where nothing limits it."""


@dataclass(frozen=True, slots=True)
class StorePlace:
    """Where artifacts lie, as a value that may cross Ray: no credentials are in it.

    Args:
        root: folder of the artifacts; with a bucket each node's scratch folder.
        url: of a bucket, `s3://BUCKET/PREFIX`; None where all nodes share the folder.
        endpoint: of a service that is not Amazon's.
    """

    root: Path
    url: str | None = None
    endpoint: str | None = None

    @property
    def is_bucket(self) -> bool:
        """Whether `root` is a node's own, and artifacts lie in a bucket."""
        return self.url is not None

    def open(self) -> ArtifactStore:
        """Return the store, one for each place in a process."""
        return _opened(self)

    def name_of(self, path: Path) -> str:
        """Return the name by which a file below the root is stored."""
        return path.relative_to(self.root).as_posix()


@functools.cache
def _opened(place: StorePlace) -> ArtifactStore:
    if place.url is None:
        return FolderStore(place.root)
    return BucketStore(place.url, place.endpoint, place.root)
