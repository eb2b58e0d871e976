"""What a process of the service does about itself and may do: its collector, its parent, its memory, its rights."""

import ctypes
import gc
import os
import signal
import sys
import threading
import time
from pathlib import Path

_LOOK_EVERY_S = 0.5
_PR_SET_DUMPABLE = 4
"""linux/prctl.h"""
RIGHTS = {"CAP_CHOWN": 0, "CAP_FOWNER": 3, "CAP_KILL": 5, "CAP_SETGID": 6, "CAP_SETUID": 7}
"""What it takes to run somebody's processes as another user: bits of linux/capability.h."""


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


def missing_rights() -> list[str]:
    """Return what this process lacks to hand files and processes over to other users; root has all of it."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return ["Linux"]
    effective = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff"))
    return [name for name, bit in RIGHTS.items() if not effective >> bit & 1]


def _watch(parent_pid: int) -> None:
    while os.getppid() == parent_pid:
        time.sleep(_LOOK_EVERY_S)
    os.kill(os.getpid(), signal.SIGTERM)
