"""`python -m xsam.workers`: run a dispatcher until SIGTERM or SIGINT, then give its jobs back and end."""

import logging
import signal
import sys

import ray

from xsam.services import logs
from xsam.services.artifacts.privacy import keep_private
from xsam.services.db import migrate
from xsam.services.db.session import Database, DatabaseAwayError
from xsam.services.process import freeze_imports, hide_memory, stop_with
from xsam.services.settings import get_settings
from xsam.workers.dispatch import ray_cluster
from xsam.workers.dispatch.dispatcher import Dispatcher

log = logging.getLogger("xsam.workers")


def main() -> None:
    """Connect, dispatch, drain."""
    hide_memory()
    settings = get_settings()
    if settings.isolation.first_user_id is not None:
        keep_private(settings)
    if settings.parent_pid is None:
        logs.to_stderr(settings.logs)
    else:
        logs.to_file(settings.log_folder / "dispatcher.log", settings.logs)
    database = Database(settings.database_url, pool_size=settings.database.pool_size, scheduling=settings.scheduling)
    try:
        database.wait(settings.database.wait_s)
    except DatabaseAwayError as e:
        sys.exit(f"Error: {e}")
    migrate.upgrade(database)
    try:
        ray_cluster.connect(settings.ray)
    except ray_cluster.ClusterError as e:
        sys.exit(f"Error: {e}")
    dispatcher = Dispatcher(settings, database)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: dispatcher.stop())
    dispatcher.recover()
    if settings.parent_pid is not None:
        stop_with(settings.parent_pid)
    log.info("dispatcher ready: %d nodes", len(ray_cluster.nodes()))
    freeze_imports()
    try:
        dispatcher.run()
    except ray_cluster.ClusterError as e:
        sys.exit(f"Error: {e}")  # whoever supervises this process starts it again, with a cluster of its own
    dispatcher.drain()
    ray.shutdown()
    log.info("dispatcher ended")


if __name__ == "__main__":
    main()
