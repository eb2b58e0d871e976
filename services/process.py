"""What a process of the service does about itself: spare its collector, end with its parent, hide its memory."""

import ctypes
import gc
import os
import signal
import sys
import threading
import time

_LOOK_EVERY_S = 0.5
_PR_SET_DUMPABLE = 4
"""linux/prctl.h"""


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


def hide_memory() -> None:
    """Keep the memory and the environment of this process from others of the same user; root still reads them.

    Ranks run a team's code as the user of the processes that know the database's address. Called by each of these as
    soon as it runs. Only Linux can; elsewhere nothing happens.

    Raises:
        OSError: the kernel refused.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE)")


def _watch(parent_pid: int) -> None:
    while os.getppid() == parent_pid:
        time.sleep(_LOOK_EVERY_S)
    os.kill(os.getpid(), signal.SIGTERM)
