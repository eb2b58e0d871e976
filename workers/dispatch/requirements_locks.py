"""The dispatcher's part in locking requirements: uv asked in threads, the answers stored in its turns."""

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor

from xsam.services.db.session import Database
from xsam.services.requirements import service as requirements
from xsam.services.settings import Settings
from xsam.workers.environments import locking
from xsam.workers.environments.uv import RequirementsError

log = logging.getLogger(__name__)

MAX_RUNNING = 2
LOOK_INTERVAL_S = 0.3


class RequirementsLocks:
    """Locks requirements for the leading dispatcher, whose environment is that of the ranks. Used from its thread.

    Args:
        settings: of the service.
        database: where requirements wait.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._pool = ThreadPoolExecutor(MAX_RUNNING, thread_name_prefix="lock")
        self._running: dict[Future[str], str] = {}
        self._look_at = 0.0
        self._has_looked = False

    def turn(self) -> None:
        """Store answers and start what waits; never waits itself."""
        for future in [future for future in self._running if future.done()]:
            self._store(self._running.pop(future), future)
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK_INTERVAL_S
        if not self._has_looked:
            self._has_looked = True
            with self._database.unit_of_work() as session:
                requirements.take_back(session)
        with self._database.read() as session:
            due = requirements.due(session, limit=MAX_RUNNING - len(self._running))
        code = self._settings.code
        for requirements_id, text in due:
            with self._database.unit_of_work() as session:
                is_taken = requirements.take(session, requirements_id)
            if is_taken:
                must_be_locked = code.allow_dependencies == "locked"
                future = self._pool.submit(locking.lock, text, index=code.index, must_be_locked=must_be_locked)
                self._running[future] = requirements_id

    def forget_failed(self) -> None:
        """Delete old requirements without a lock."""
        with self._database.unit_of_work() as session:
            requirements.forget_failed(session)

    def _store(self, requirements_id: str, future: Future[str]) -> None:
        lock, error = None, None
        try:
            lock = future.result()
        except RequirementsError as e:
            error = str(e)
        except OSError as e:  # no uv, no folder for temporary files: whoever waits is told
            log.exception("requirements %s can't be locked", requirements_id)
            error = f"requirements: the dispatcher can't run uv: {e}"
        with self._database.unit_of_work() as session:
            requirements.answer(session, requirements_id, lock=lock, error=error)
