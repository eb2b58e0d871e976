"""The artifact store as a bucket of an S3 service, by pyarrow's client.

Credentials come from the environment variables and files that every AWS client reads, and from nowhere else. An object
is there whole or not at all: it is seen when its upload is complete.
"""

import importlib
import io
import os
import secrets
import shutil
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import IO, Any, BinaryIO

from xsam.services.errors import StorageError
from xsam.services.stores.folder import Put, StoredFile, checked

SCHEME = "s3://"
MAX_ATTEMPTS = 5
CONNECT_S = 10.0
_CHUNK_BYTES = 8 * 2**20
_MAX_COPIES = 64
"""Folders of which a process keeps copies."""


class BucketStore:
    """Objects below a prefix; see `xsam.services.stores.store.ArtifactStore`. Thread-safe.

    Args:
        url: `s3://BUCKET`, or `s3://BUCKET/PREFIX`. The bucket must exist.
        endpoint: of a service that is not Amazon's; https unless it begins with `http://`.
        scratch: folder of this machine for copies of what is read as files.
    """

    def __init__(self, url: str, endpoint: str | None, scratch: Path) -> None:
        self._url = url.rstrip("/")
        self._base = self._url.removeprefix(SCHEME)
        self._endpoint = endpoint
        self._copies = scratch / f"copies-{os.getpid()}"
        self._copied: OrderedDict[str, None] = OrderedDict()
        self._copying = Lock()

    @property
    def name(self) -> str:
        """How people know it."""
        return self._url

    def list(self, prefix: str = "") -> Iterator[StoredFile]:
        """Yield the objects below `prefix` by name."""
        yield from sorted(self._files(prefix), key=lambda one: one.name)

    def names(self, prefix: str) -> Sequence[str]:
        """Return the names right below `prefix`."""
        selector = self._fs.FileSelector(self._key(prefix), recursive=False, allow_not_found=True)
        with _named(self._key(prefix)):
            infos = self._client.get_file_info(selector)
        return sorted(info.base_name for info in infos)

    def stat(self, name: str) -> StoredFile:
        """Return what an object is now."""
        with _named(self._key(name)):
            info = self._client.get_file_info(self._key(name))
            if info.type != self._fs.FileType.File:
                raise FileNotFoundError(f"{SCHEME}{self._key(name)} is not there")
            # The time of an object is told in seconds; its tag tells two of one second apart.
            with self._client.open_input_file(self._key(name)) as file:
                tag = file.metadata().get("ETag", b"").decode()
        return StoredFile(name, info.size, info.mtime, tag)

    def open(self, name: str) -> BinaryIO:
        """Open an object for reading; each 8 MiB of it are a request."""
        with _named(self._key(name)):
            file = self._client.open_input_file(self._key(name))
        return io.BufferedReader(file, _CHUNK_BYTES)

    def path(self, name: str) -> Path | None:
        """Return nothing: an object lies on no machine."""
        return None

    def local(self, prefix: str) -> Path:
        """Return a copy of a folder, in which only what has changed is fetched; other copies go when there are many."""
        target = self._copies / prefix
        with self._copying:
            if not self._copied:
                _remove_copies_of_dead(self._copies.parent)
            self._copied[prefix] = None
            self._copied.move_to_end(prefix)
            while len(self._copied) > _MAX_COPIES:
                oldest, _ = self._copied.popitem(last=False)
                shutil.rmtree(self._copies / oldest, ignore_errors=True)
        there = {self._copies / one.name: one for one in self.list(prefix)}
        # Names backwards: of a log that was rotated meanwhile, the full file comes before the new one.
        for path in sorted(there, reverse=True):
            one = there[path]
            with suppress(FileNotFoundError):
                status = path.stat()
                if (status.st_size, status.st_mtime) == (one.size_bytes, one.modified_at.timestamp()):
                    continue
            with suppress(FileNotFoundError):  # deleted since it was listed
                self.get(one.name, path)
                os.utime(path, times=(one.modified_at.timestamp(),) * 2)
        for path in target.rglob("*"):
            if path.is_file() and path not in there and not path.name.startswith("."):
                path.unlink(missing_ok=True)
        return target

    def put(self, name: str, source: Path) -> None:
        """Upload a file."""
        # One write of the file's pages. A loop that fails between two reads would leave half an object: pyarrow
        # completes the upload of a stream that is closed, for whatever reason.
        arrow = importlib.import_module("pyarrow")
        content = arrow.memory_map(str(source)).read_buffer() if source.stat().st_size else b""
        self.put_bytes(name, content)

    def put_bytes(self, name: str, content: bytes) -> None:
        """Upload a content."""
        with _named(self._key(name)), self._writing(name) as stream:
            stream.write(content)

    def get(self, name: str, target: Path) -> None:
        """Download an object as it is now; one that is replaced meanwhile, as a growing log is, is downloaded anew.

        Raises:
            StorageError: it was replaced each of `MAX_ATTEMPTS` times.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}-{secrets.token_hex(6)}")
        before = self.stat(name)
        try:
            for _ in range(MAX_ATTEMPTS):
                try:
                    self._download(name, temporary)
                except StorageError:
                    # Of one that has become shorter, the end that is asked for is not there.
                    if self.stat(name) == before:
                        raise
                else:
                    if self.stat(name) == before:
                        temporary.replace(target)
                        return
                before = self.stat(name)
        finally:
            temporary.unlink(missing_ok=True)
        raise StorageError(f"{self._key(name)} was replaced each time it was read")

    def _download(self, name: str, target: Path) -> None:
        with self.open(name) as source, target.open("wb") as file, _named(self._key(name)):
            while chunk := source.read(_CHUNK_BYTES):
                file.write(chunk)

    def delete(self, prefix: str) -> None:
        """Delete an object, or all below a prefix."""
        key = self._key(prefix)
        with _named(key), suppress(FileNotFoundError):
            if not prefix:
                self._client.delete_dir_contents(key)
            elif self._client.get_file_info(key).type == self._fs.FileType.File:
                self._client.delete_file(key)
            else:
                self._client.delete_dir(key)

    def set_aside(self, prefix: str) -> None:
        """Delete it at once: a bucket moves nothing."""
        self.delete(prefix)

    def delete_if_old(self, name: str, *, older_than_s: float) -> None:
        """Delete an object unless it has just been stored anew."""
        with suppress(FileNotFoundError):
            if (datetime.now(UTC) - self.stat(name).modified_at).total_seconds() > older_than_s:
                self.delete(name)

    def empty_trash(self) -> None:
        """Do nothing: there is none."""

    def room(self) -> tuple[int, int]:
        """Return two zeros: nobody knows."""
        return 0, 0

    @contextmanager
    def filled(self) -> Iterator[Put]:
        """Yield what stores objects; if the block fails, everything in the store is deleted again."""
        try:
            yield self._put
        except BaseException:
            self.delete("")
            raise

    def _put(self, name: str, source: IO[bytes]) -> None:
        with _named(self._key(name)), self._writing(checked(name)) as stream:
            shutil.copyfileobj(source, stream, _CHUNK_BYTES)

    @cached_property
    def _fs(self) -> Any:
        # Late: whoever starts a command does not wait for it.
        return importlib.import_module("pyarrow.fs")

    @cached_property
    def _client(self) -> Any:
        endpoint = self._endpoint or ""
        scheme, _, host = endpoint.rpartition("://")
        return self._fs.S3FileSystem(
            endpoint_override=host or None,
            scheme=scheme or "https",
            connect_timeout=CONNECT_S,
            retry_strategy=self._fs.AwsStandardS3RetryStrategy(max_attempts=MAX_ATTEMPTS),
        )

    def _key(self, name: str) -> str:
        return f"{self._base}/{name}".rstrip("/")

    def _writing(self, name: str) -> Any:
        # By default pyarrow compresses what is named like something compressed.
        return self._client.open_output_stream(self._key(name), compression=None)

    def _files(self, prefix: str) -> Iterator[StoredFile]:
        selector = self._fs.FileSelector(self._key(prefix), recursive=True, allow_not_found=True)
        with _named(self._key(prefix)):
            infos = self._client.get_file_info(selector)
        for info in infos:
            if info.type == self._fs.FileType.File:
                yield StoredFile(info.path.removeprefix(f"{self._base}/"), info.size, info.mtime)


@contextmanager
def _named(key: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as e:
        reason, _, _ = str(e).partition("\n")
        raise StorageError(f"{SCHEME}{key}: {reason}") from e


def _remove_copies_of_dead(scratch: Path) -> None:
    """Delete the copies of processes that did not live to do so; one that is alive copies anew what it misses."""
    for path in scratch.glob("copies-*"):
        try:
            os.kill(int(path.name.removeprefix("copies-")), 0)
        except ProcessLookupError:
            shutil.rmtree(path, ignore_errors=True)
        except (PermissionError, ValueError):
            continue
