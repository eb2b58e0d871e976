"""The leader forgets what is kept long enough, in a thread of its own: deleting large folders takes its time."""

import logging
import threading

from sqlalchemy.exc import DBAPIError

from xsam.services.db.session import Database
from xsam.services.errors import StorageError
from xsam.services.retention import collecting, fill
from xsam.services.settings import Settings

log = logging.getLogger(__name__)


class RetentionRounds:
    """Runs one round at a time.

    Args:
        settings: the service's settings.
        database: where the jobs are.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Begin a round, unless the one before has not ended."""
        if self._thread is not None and self._thread.is_alive():
            return
        self._thread = threading.Thread(target=self._run, name="retention", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the round between two of its parts; what it leaves, the next one takes up."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        store = self._settings.store_place.open()
        try:
            for one in collecting.collect(
                self._database, store, self._settings.artifacts, is_stopped=self._stopped.is_set
            ):
                log.info("forgot %s of %d of team %s (%d bytes)", one.kind, one.num, one.team, one.num_bytes)
            with self._database.unit_of_work() as session:
                fill.note(session, store)
        except DBAPIError as e:
            log.warning("retention is put off: %s", str(e).splitlines()[0])
        except (OSError, StorageError) as e:
            log.warning("retention is put off: %s", e)
