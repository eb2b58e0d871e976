"""`python -m workers`: run a dispatcher until SIGTERM or SIGINT, then give its jobs back and end."""

import logging
import os
import signal
import threading
import time

import ray

from services.db import migrate
from services.db.session import Database
from services.log import set_up_logging
from services.settings import get_settings
from workers import cluster
from workers.dispatcher import Dispatcher

log = logging.getLogger("workers")

PARENT_VARIABLE = "XSAM_PARENT_PID"
"""Set by whoever starts the dispatcher as its child: the dispatcher ends when that process is gone."""
PARENT_INTERVAL_S = 0.5


def main() -> None:
    """Connect, dispatch, drain."""
    set_up_logging()
    settings = get_settings()
    database = Database(settings.database_url, pool_size=settings.database.pool_size)
    migrate.upgrade(database)
    cluster.connect(settings.ray)
    dispatcher = Dispatcher(settings, database)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: dispatcher.stop())
    dispatcher.recover()
    threading.Thread(target=_watch_parent, args=(dispatcher,), name="parent", daemon=True).start()
    log.info("dispatcher ready: %d nodes", len(cluster.nodes()))
    dispatcher.run()
    dispatcher.drain()
    ray.shutdown()
    log.info("dispatcher ended")


def _watch_parent(dispatcher: Dispatcher) -> None:
    parent = os.environ.get(PARENT_VARIABLE)
    while parent is not None and os.getppid() == int(parent):
        time.sleep(PARENT_INTERVAL_S)
    if parent is not None:
        log.warning("the parent process is gone, ending")
        dispatcher.stop()


if __name__ == "__main__":
    main()
