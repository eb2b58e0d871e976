"""Folders that a team's ranks find when they have become its user: of a job, and of the team on a node.

Made with the service's rights, which are those of the owner of the folder above. What carries other folders stays the
service's, so no team can put a link in the place of something that the service will follow.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from xsam.services.artifacts.store import TENSORBOARD, WEIGHTS, JobFolder
from xsam.workers.isolation.team_user import SETTING, IsolationError, require_rights

_SHARED = 0o2770
"""The team's, and the service's through the group, which new files inherit."""


@dataclass(frozen=True, slots=True)
class TeamFolder:
    """What a node has for one team.

    Args:
        code: unpacked bundles, the service's; the team reads.
        home: the team's own.
    """

    code: Path
    home: Path


def open_job(folder: JobFolder, user: int, *, attempt: int | None = None) -> None:
    """Make a job's folder as ranks of its team need it, or as others of its team who only read.

    Those that ranks write to become the team's with all that is in them, where they are not yet: of a job that ran
    before ranks had users, or that came out of a backup.

    Args:
        folder: of the job.
        user: of its team.
        attempt: for whose ranks; None for those of another job.

    Raises:
        IsolationError: this process may not.
    """
    with _explained(folder.path):
        require_rights()
        folder.path.parent.mkdir(parents=True, exist_ok=True)
        service = folder.root.stat()
        pass_through(folder.root)
        pass_through(folder.path.parent)
        carrying, written = [folder.path], [folder.checkpoints, folder.path / WEIGHTS]
        if attempt is not None:
            carrying += [folder.attempt(attempt).parent, folder.attempt(attempt), folder.path / TENSORBOARD]
            written.append(folder.logs(attempt))
        for path in carrying:
            path.mkdir(exist_ok=True)
            os.chown(path, service.st_uid, user)
            path.chmod(0o750)
        for path in written:
            path.mkdir(exist_ok=True)
            if path.stat().st_uid != user:
                _hand_over(path, user, service.st_gid)


def close_job(folder: JobFolder, attempt: int) -> None:
    """Let the service through its group at what a rank has kept to itself, as `mkdtemp` does; once no rank is left."""
    for path in (folder.checkpoints, folder.path / WEIGHTS, folder.logs(attempt)):
        with suppress(OSError):  # there is none, or storage that is away: what the attempt did is stored all the same
            group = folder.root.stat().st_gid
            for descriptor, status in _below(path):
                wanted = status.st_mode | _group_bits(status)
                if status.st_gid == group and status.st_mode != wanted:
                    os.fchmod(descriptor, stat.S_IMODE(wanted))


def open_team(code_root: Path, user: int) -> TeamFolder:
    """Make what this node has for a team.

    Raises:
        IsolationError: this process may not, or somebody else was here first.
    """
    with _explained(code_root):
        require_rights()
        code_root.mkdir(parents=True, exist_ok=True, mode=0o700)
        _check_is_ours(code_root)
        pass_through(code_root)
        own = code_root / f"user-{user}"
        folder = TeamFolder(own / "code", own / "home")
        for path in (own, folder.code):
            path.mkdir(exist_ok=True, mode=0o700)
            _check_is_ours(path)
            os.chown(path, -1, user)
            path.chmod(0o750)
        folder.home.mkdir(exist_ok=True, mode=0o700)
        os.chown(folder.home, user, user)
        return folder


def pass_through(path: Path) -> None:
    """Let others through a folder of the service if they know the next name; they list nothing."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o007 != 0o001:
        path.chmod(mode & ~0o007 | 0o001)


def _check_is_ours(path: Path) -> None:
    if path.lstat().st_uid != os.geteuid() or path.is_symlink():
        raise IsolationError(f"{SETTING}: {path} belongs to another user; nothing is imported from there")


def _hand_over(top: Path, user: int, group: int) -> None:
    """Give a folder to a team, itself last: until then nobody of the team can have put anything into it."""
    for descriptor, status in _below(top):
        os.fchown(descriptor, user, group)
        os.fchmod(descriptor, stat.S_IMODE(status.st_mode) & ~0o007 | _group_bits(status) | 0o600)


def _group_bits(status: os.stat_result) -> int:
    return _SHARED if stat.S_ISDIR(status.st_mode) else 0o060


def _below(top: Path) -> Iterator[tuple[int, os.stat_result]]:
    """Yield all files and folders below, opened, deepest first and `top` last; no link is followed."""
    for _, _, names, parent in os.fwalk(top, topdown=False):
        for name in names:
            with suppress(OSError):  # gone, or a link
                descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=parent)
                try:
                    status = os.fstat(descriptor)
                    if stat.S_ISREG(status.st_mode):
                        yield descriptor, status
                finally:
                    os.close(descriptor)
        yield parent, os.fstat(parent)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise IsolationError(f"{SETTING}: {path} can't be made a team's own: {e}") from e
