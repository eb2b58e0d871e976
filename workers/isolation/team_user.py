"""A process that becomes the user of the team whose code it is to run, for the rest of its life."""

import ctypes
import os
import socket
import stat
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from xsam.services.process import missing_rights

SETTING = "XSAM_ISOLATION__FIRST_USER_ID"
_UMASK = 0o007
"""The group of what a rank writes is the service's, which reads and deletes it; nobody else."""
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38
"""linux/prctl.h"""


class IsolationError(Exception):
    """This node can't run ranks as users of their teams; the message names the setting and what is missing."""


def require_rights() -> None:
    """Check that this process may hand files and itself over to a team's user.

    Raises:
        IsolationError: it may not.
    """
    if missing := missing_rights():
        raise IsolationError(
            f"{SETTING} is set, but Ray's processes on {socket.gethostname()} lack {', '.join(missing)}; "
            "start Ray there as root"
        )


def become(user: int, home: Path) -> None:
    """Give all rights of this process up for those of a team's user, who need not be in any list of users.

    All threads change at once, so does Ray's own; what is open stays open. The process can be looked into again
    (debuggers, and what ranks of one run share), by processes of the same team alone.

    Args:
        user: the id of the user and of its one group.
        home: the user's own folder on this node.

    Raises:
        IsolationError: the kernel refused, or something is left. Nothing of a team may run in this process then.
    """
    require_rights()
    _close_output()
    try:
        os.setgroups([user])
        os.setresgid(user, user, user)
        os.setresuid(0, 0, 0)  # rights of who is not root would outlive the next line
        os.setresuid(user, user, user)
    except OSError as e:
        raise IsolationError(f"{SETTING}: a process on {socket.gethostname()} can't become user {user}: {e}") from e
    _control(_PR_SET_NO_NEW_PRIVS, 1)
    _control(_PR_SET_DUMPABLE, 1)
    os.umask(_UMASK)
    _check_has_become(user)
    scratch = home / "tmp"
    scratch.mkdir(exist_ok=True)
    os.environ.update(HOME=str(home), TMPDIR=str(scratch), USER=f"team-{user}", LOGNAME=f"team-{user}")
    tempfile.tempdir = None  # Python keeps what it found before
    os.chdir(home)


def require_reach(user: int, *, read: Sequence[Path] = (), write: Sequence[Path] = ()) -> None:
    """Check, as the user, that what a run needs can be reached.

    Raises:
        IsolationError: a folder can't; the message names it.
    """
    for paths, mode, verb in ((read, os.R_OK | os.X_OK, "read"), (write, os.W_OK | os.X_OK, "write to")):
        for path in paths:
            if not os.access(path, mode):
                raise IsolationError(
                    f"{SETTING}: user {user} can't {verb} {path} on {socket.gethostname()}; "
                    "each folder above it must let other users through (chmod o+x)"
                )


def _close_output() -> None:
    """Keep what this process has printed, and will, from other users: Ray's files of it can be read by all."""
    for descriptor in (1, 2):
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.fchmod(descriptor, 0o600)


def _control(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "linux" and libc.prctl(option, value, 0, 0, 0) != 0:
        raise IsolationError(f"{SETTING}: prctl({option}): {os.strerror(ctypes.get_errno())}")


def _check_has_become(user: int) -> None:
    """Check that no thread of this process has kept anything, and that there is no way back."""
    for status in Path("/proc/self/task").glob("*/status"):
        try:
            lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        except (FileNotFoundError, ProcessLookupError):
            continue  # the thread has ended
        ids = {*lines["Uid"].split(), *lines["Gid"].split(), *lines["Groups"].split()}
        if ids != {str(user)} or any(int(lines[name], 16) for name in ("CapEff", "CapPrm", "CapAmb")):
            raise IsolationError(f"{SETTING}: {status.parent} has kept other rights than those of user {user}")
    for give in (os.setuid, os.setgid):
        try:
            give(0)
        except PermissionError:
            continue
        raise IsolationError(f"{SETTING}: a process of user {user} can become root again on {socket.gethostname()}")
