"""Keeps a running job's lease alive and hears what somebody wants of the job."""

import logging
import threading
import time
from collections.abc import Callable

from xsam.services import logs
from xsam.services.db.session import AWAY, Database
from xsam.services.errors import LeaseLostError
from xsam.services.jobs import queue
from xsam.services.jobs.queue import Lease
from xsam.services.jobs.states import Wish

log = logging.getLogger(__name__)

WISH_INTERVAL_S = 0.5


class LeaseKeeper:
    """Renews a lease from a thread of its own until closed.

    Args:
        database: the runner's own.
        lease: what to renew.
        lease_s: length of each renewal; renewed after a third of it.
        on_lost: called once, from the thread, when the lease is gone.
    """

    def __init__(self, database: Database, lease: Lease, *, lease_s: float, on_lost: Callable[[], None]) -> None:
        self._database = database
        self._lease = lease
        self._log = logs.of_attempt(log, lease.job_id, lease.attempt)
        self._lease_s = lease_s
        self._on_lost = on_lost
        self._closed = threading.Event()
        self.wish: Wish | None = None
        self._renew_at = 0.0
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop renewing."""
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(WISH_INTERVAL_S):
            try:
                self._look()
            except LeaseLostError:
                self._on_lost()
                return
            except AWAY as e:
                self._log.warning("the database did not answer, trying again: %s", e)
            except Exception:  # the thread's boundary: a lease that nobody renews any more is as good as lost
                self._log.exception("the lease can't be renewed")
                self._on_lost()
                return

    def _look(self) -> None:
        if time.monotonic() >= self._renew_at:
            with self._database.one_statement() as session:
                self.wish = queue.renew_lease(session, self._lease, lease_s=self._lease_s)
            self._renew_at = time.monotonic() + self._lease_s / 3
        else:
            with self._database.one_statement() as session:
                self.wish = queue.read_wish(session, self._lease)
