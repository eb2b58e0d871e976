"""A run's checkpoints and weights between its node's scratch folder and a bucket.

A checkpoint counts when its manifest is in the bucket, which is stored last and names every file with its SHA-256. The
folder of a node that has not made a checkpoint holds its manifest alone, until the checkpoint itself is fetched.
"""

import fcntl
import json
import logging
import os
import re
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from xsam.services.artifacts.store import CHECKPOINTS, WEIGHTS
from xsam.services.errors import StorageError
from xsam.services.metrics.records import CheckpointRecord
from xsam.services.stores.folder import checked
from xsam.services.stores.store import StorePlace
from xsam.workers.messages import RankContext
from xsam.workers.training.checkpoints.files import MANIFEST, file_digest
from xsam.workers.training.errors import CheckpointError, StoreAwayError, SupersededError

_CHECKPOINT = re.compile(r"step-\d{9,}")

logger = logging.getLogger("training")


class CheckpointMirror:
    """Uploads what is complete, in a thread of its own, one checkpoint after the other; fetches what is missing.

    Args:
        place: with a bucket.
        job_folder: name of the job's folder there.
        folder: of the checkpoints on this node; weights lie in `weights` beside it.
        may_publish: asked before a checkpoint's manifest is stored.
    """

    def __init__(
        self, place: StorePlace, job_folder: str, folder: Path, may_publish: Callable[[], bool] = lambda: True
    ) -> None:
        self._store = place.open()
        self._job_folder = job_folder
        self._folder = folder
        self._prefix = f"{job_folder}/{CHECKPOINTS}"
        self._may_publish = may_publish
        self._sent_weights: dict[Path, tuple[int, int]] = {}
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None
        self._settled: list[CheckpointRecord] = []

    def begin(self) -> None:
        """Let the folder hold the manifests of what is in the bucket and nothing else; delete what has none there.

        To be called by one rank, before the others fetch.

        Raises:
            StoreAwayError: the bucket does not answer.
        """
        with self._named(), self._alone():
            self._folder.mkdir(parents=True, exist_ok=True)
            complete = set(self.names())
            for name in complete:
                manifest = self._manifest_of(name)
                if not _has(self._folder / name, manifest):  # what has, another rank may have fetched just now
                    shutil.rmtree(self._folder / name, ignore_errors=True)
                    (self._folder / name).mkdir()
                    (self._folder / name / MANIFEST).write_bytes(manifest)
            for path in self._folder.iterdir():
                if path.name not in complete:
                    shutil.rmtree(path, ignore_errors=True)
            for name in self._store.names(self._prefix):
                if name not in complete:
                    self._store.delete(f"{self._prefix}/{name}")

    def names(self) -> Sequence[str]:
        """Return the names of the checkpoints that have a manifest in the bucket, the newest first."""
        with self._named():
            files = [file.name.removeprefix(f"{self._prefix}/").split("/") for file in self._store.list(self._prefix)]
        found = [parts[0] for parts in files if parts[1:] == [MANIFEST] and _CHECKPOINT.fullmatch(parts[0])]
        return sorted(found, key=lambda name: (len(name), name), reverse=True)

    def fetch(self, name: str) -> None:
        """Bring a checkpoint to this node, whole and compared with its manifest, unless it is here.

        Any number of ranks of a node may ask for it at once.

        Raises:
            StoreAwayError: the bucket does not answer.
            CheckpointError: it does not have it as its manifest says.
        """
        target = self._folder / name
        with self._named(), self._alone():
            manifest = self._manifest_of(name)
            files = _files_of(name, manifest)
            if _has(target, manifest) and all((target / file).is_file() for file in files):
                return
            temporary = self._folder / f"tmp-{name}-{secrets.token_hex(6)}"
            try:
                for file, digest in files.items():
                    self._store.get(f"{self._prefix}/{name}/{file}", temporary / file)
                    if file_digest(temporary / file) != digest:
                        raise CheckpointError(f"{file} of {name} is damaged: its SHA-256 is not the manifest's")
                (temporary / MANIFEST).write_bytes(manifest)
                shutil.rmtree(target, ignore_errors=True)
                temporary.rename(target)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)

    def fetch_all(self, *, is_newest_enough: bool) -> None:
        """Bring the checkpoints that are intact, or the newest of them.

        Raises:
            StoreAwayError: the bucket does not answer.
        """
        for name in self.names():
            if self._fetch_intact(name) and is_newest_enough:
                return

    def send(self, record: CheckpointRecord) -> None:
        """Begin to upload a checkpoint that is complete on this node, after the one before.

        Raises:
            CheckpointError: the one before could not be uploaded.
        """
        self.wait()
        self._thread = threading.Thread(target=self._upload_safely, args=(record,), name="upload", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Return when nothing is being uploaded.

        Raises:
            CheckpointError: it could not be.
        """
        if self._thread is not None:
            self._thread.join()
        self._raise_failure()

    def settled(self) -> Sequence[CheckpointRecord]:
        """Return what has come into the bucket since the last call.

        Raises:
            CheckpointError: something could not be uploaded.
        """
        self._raise_failure()
        settled: list[CheckpointRecord] = []
        while self._settled:
            settled.append(self._settled.pop(0))
        return settled

    def _manifest_of(self, name: str) -> bytes:
        with self._store.open(f"{self._prefix}/{name}/{MANIFEST}") as source:
            return source.read()

    def _fetch_intact(self, name: str) -> bool:
        try:
            self.fetch(name)
        except StoreAwayError:
            raise
        except CheckpointError as e:  # damaged, or pruned meanwhile by a run that goes on
            logger.warning("checkpoint %s is skipped: %s", name, e)
            return False
        return True

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _upload_safely(self, record: CheckpointRecord) -> None:
        try:
            with self._named():
                self._upload(record.name)
            self._settled.append(record)
        except Exception as e:  # the thread's boundary: the training thread raises it
            self._failure = e

    def _upload(self, name: str) -> None:
        source, target = self._folder / name, f"{self._prefix}/{name}"
        # A run that fell back behind a damaged checkpoint comes past it again: its old manifest must not vouch.
        self._store.delete(f"{target}/{MANIFEST}")
        for path in sorted(source.iterdir()):
            if path.name != MANIFEST:
                self._store.put(f"{target}/{path.name}", path)
        # Before the checkpoint, so that one that is there never lacks the best weights of its past.
        self._send_weights()
        if not self._may_publish():
            raise SupersededError(f"{name} is not put in place: another attempt owns the job by now")
        self._store.put(f"{target}/{MANIFEST}", source / MANIFEST)
        self._prune()

    def _send_weights(self) -> None:
        for path in sorted((self._folder.parent / WEIGHTS).glob("*.safetensors")):
            status = path.stat()
            state = (status.st_ino, status.st_mtime_ns)
            if self._sent_weights.get(path) != state:
                self._store.put(f"{self._job_folder}/{WEIGHTS}/{path.name}", path)
                self._sent_weights[path] = state

    def _prune(self) -> None:
        """Delete from the bucket what was pruned here; a manifest goes first."""
        for name in self._store.names(self._prefix):
            if not (self._folder / name).is_dir():
                self._store.delete(f"{self._prefix}/{name}/{MANIFEST}")
                self._store.delete(f"{self._prefix}/{name}")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep the node's other ranks from doing the same."""
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._folder.with_name(f".{self._folder.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def _named(self) -> Iterator[None]:
        where = f"{self._store.name}/{self._prefix}"
        try:
            yield
        except FileNotFoundError as e:
            raise CheckpointError(f"{where}: {e}") from e
        except (OSError, StorageError) as e:
            raise StoreAwayError(f"{where}: {e}") from e


def mirror_of(context: RankContext, may_publish: Callable[[], bool]) -> CheckpointMirror | None:
    """Return the mirror of a rank's run; None where all nodes share a folder."""
    bucket, folder = context.bucket, context.checkpoint_dir
    return None if bucket is None else CheckpointMirror(bucket, bucket.name_of(folder.parent), folder, may_publish)


def _files_of(name: str, manifest: bytes) -> dict[str, str]:
    """Return a manifest's files with their digests; each lies right in the checkpoint's folder."""
    try:
        files = {str(file): str(digest) for file, digest in json.loads(manifest)["files"].items()}
        if any("/" in checked(file) for file in files):
            raise ValueError("a file lies in a folder")
    except (ValueError, KeyError, TypeError, AttributeError, StorageError) as e:
        raise CheckpointError(f"{name} has no readable {MANIFEST}: {e}") from e
    return files


def _has(folder: Path, manifest: bytes) -> bool:
    with suppress(FileNotFoundError):
        return (folder / MANIFEST).read_bytes() == manifest
    return False
