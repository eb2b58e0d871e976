"""What a process of the service does about itself: spare its garbage collector, end with its parent."""

import gc
import os
import signal
import threading
import time

_LOOK_EVERY_S = 0.5


def freeze_imports() -> None:
    """Spare the garbage collector what the imports made: to look through it takes a sixth of a second, every time.

    Called once by each long-lived process when it is ready for work.
    """
    gc.collect()
    gc.freeze()


def stop_with(parent_pid: int) -> None:
    """Send this process SIGTERM as soon as `parent_pid` is no longer its parent.

    A child of a dead process gets another parent at once, and a process id is not used again while its child looks,
    so comparing the two can't be fooled. Call it once, from a process that drains on SIGTERM.
    """
    threading.Thread(target=_watch, args=(parent_pid,), name="parent-watch", daemon=True).start()


def _watch(parent_pid: int) -> None:
    while os.getppid() == parent_pid:
        time.sleep(_LOOK_EVERY_S)
    os.kill(os.getpid(), signal.SIGTERM)
