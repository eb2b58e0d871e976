"""The leader sends what waits in the outbox, in a thread of its own: a receiver may take its time."""

import logging
import threading
import time

from sqlalchemy.exc import DBAPIError

from xsam.services.db.session import Database
from xsam.services.notifications import outbox, sending
from xsam.services.notifications.outbox import Message
from xsam.services.notifications.sending import NotDeliveredError
from xsam.services.settings import NotificationSettings

log = logging.getLogger(__name__)

LOOK_INTERVAL_S = 1.0
_AT_ONCE = 50


class NotificationRounds:
    """Runs one round at a time.

    Args:
        settings: whom may be told, and how long a receiver may take.
        database: where the outbox is.
    """

    def __init__(self, settings: NotificationSettings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._look_at = 0.0
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Begin a round if something is due, unless the one before has not ended."""
        if time.monotonic() < self._look_at or (self._thread is not None and self._thread.is_alive()):
            return
        self._look_at = time.monotonic() + LOOK_INTERVAL_S
        with self._database.read() as session:
            messages = outbox.due(session, limit=_AT_ONCE)
        if messages:
            self._thread = threading.Thread(target=self._run, args=(messages,), name="notifications", daemon=True)
            self._thread.start()

    def forget_old(self) -> None:
        """Delete what was told long ago."""
        with self._database.unit_of_work() as session:
            outbox.forget_old(session)

    def close(self) -> None:
        """End the round after the message that is being sent; the rest is the next leader's."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, messages: list[Message]) -> None:
        for message in messages:
            if self._stopped.is_set():
                return
            try:
                self._deliver(message)
            except DBAPIError as e:  # it is sent again, with the same id
                log.warning("what came of message %s was not stored: %s", message.id, str(e).splitlines()[0])
                return

    def _deliver(self, message: Message) -> None:
        try:
            sending.send(message, self._settings)
        except NotDeliveredError as e:
            log.warning("message %s did not arrive: %s", message.id, e)
            with self._database.unit_of_work() as session:
                outbox.note_failed(session, message, str(e))
        else:
            with self._database.unit_of_work() as session:
                outbox.note_delivered(session, message.id)
