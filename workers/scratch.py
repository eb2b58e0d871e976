"""What a job has on a node while artifacts lie in a bucket: held while processes use it, uploaded as it is written."""

import fcntl
import logging
import os
import shutil
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from xsam.services.artifacts.store import JOBS, JobFolder
from xsam.services.errors import StorageError
from xsam.services.stores.store import StorePlace

UPLOAD_INTERVAL_S = 3.0
"""A log's newest lines are seen so much later; a process that is killed loses them if its node has no runner of it."""
_LOCKS = "locks"

log = logging.getLogger(__name__)


class Scratch:
    """A job's folder on this node, for one process of an attempt. Where all nodes share a folder it does nothing.

    What lies there of attempts that were killed is deleted when it is made, of any job that no process holds any more;
    the job's own when its last process on the node lets go.

    Args:
        place: where artifacts lie.
        job_id: whose folder it is.
        patterns: of the files, below the job's folder, that this process uploads as they are written.
    """

    def __init__(self, place: StorePlace, job_id: str, patterns: Sequence[str]) -> None:
        self._place = place
        self._folder = JobFolder(place.root, job_id).path
        self._patterns = patterns
        self._sent: dict[Path, tuple[int, int]] = {}
        self._is_failing = False
        self._uploading = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        if place.is_bucket:
            _sweep(place.root)
            self._lock = _hold(place.root, job_id)
            self._thread = threading.Thread(target=self._run, name="scratch", daemon=True)
            self._thread.start()

    def flush(self, *more: str) -> None:
        """Upload what is written by now.

        Args:
            more: patterns of files of others, which may have been killed.
        """
        if self._thread is not None:
            self._upload([*self._patterns, *more])

    def close(self) -> None:
        """Upload what is left and let go of the folder."""
        if self._thread is None:
            return
        self._closed.set()
        self._thread.join()
        self.flush()
        _release(self._lock, self._place.root, self._folder)

    def _run(self) -> None:
        while not self._closed.wait(UPLOAD_INTERVAL_S):
            self.flush()

    def _upload(self, patterns: Sequence[str]) -> None:
        with self._uploading:
            try:
                for path in self._found(patterns):
                    self._upload_changed(path)
                self._is_failing = False
            except (OSError, StorageError) as e:
                if not self._is_failing:
                    log.warning("files of the attempt can't be uploaded, trying again: %s", e)
                self._is_failing = True

    def _upload_changed(self, path: Path) -> None:
        with suppress(FileNotFoundError):  # rotated meanwhile
            status = path.stat()
            state = (status.st_size, status.st_mtime_ns)
            if self._sent.get(path) != state:
                self._place.open().put(self._place.name_of(path), path)
                self._sent[path] = state

    def _found(self, patterns: Sequence[str]) -> list[Path]:
        """Names backwards: of a log that was rotated, the full file comes before the new one."""
        found = {path for pattern in patterns for path in self._folder.glob(pattern)}
        return sorted((path for path in found if path.is_file() and not path.is_symlink()), reverse=True)


def _sweep(root: Path) -> None:
    """Delete the folders of jobs that no process of this node holds."""
    with suppress(FileNotFoundError):
        for folder in list((root / JOBS).iterdir()):
            _release(_open_lock(root, folder.name), root, folder)


def _hold(root: Path, job_id: str) -> int:
    while True:
        lock = _open_lock(root, job_id)
        fcntl.flock(lock, fcntl.LOCK_SH)
        if _is_lock(lock, root, job_id):
            return lock
        os.close(lock)  # deleted between the two by the last one that let go


def _release(lock: int, root: Path, folder: Path) -> None:
    """Let go of a lock; delete it and the folder if nobody else has it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_lock(lock, root, folder.name):
            shutil.rmtree(folder, ignore_errors=True)
            (root / _LOCKS / folder.name).unlink()
    except (BlockingIOError, PermissionError):
        pass  # held by others; or a rank that has become its team's user leaves it to the next process that sweeps
    finally:
        fcntl.flock(lock, fcntl.LOCK_UN)  # also for processes that were forked meanwhile and have it too
        os.close(lock)


def _open_lock(root: Path, job_id: str) -> int:
    (root / _LOCKS).mkdir(parents=True, exist_ok=True)
    return os.open(root / _LOCKS / job_id, os.O_RDWR | os.O_CREAT, 0o600)


def _is_lock(lock: int, root: Path, job_id: str) -> bool:
    """Return whether an opened lock is still the one that others would open."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(lock), os.stat(root / _LOCKS / job_id))
    return False
