"""What other users of a machine see of the service's files there: nothing, but for what a team's ranks are given."""

import os
import stat
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from xsam.services.artifacts.store import JOBS
from xsam.services.settings import Settings


def keep_private(settings: Settings) -> None:
    """Let other users read nothing that this process, or one that it starts, writes into the data directory.

    Where ranks run as users of their teams, these pass through to folders that are opened to them by name; what lies
    there from before is closed, but for datasets and models, which all teams read.
    """
    data_dir, artifacts = settings.data_dir.resolve(), settings.artifact_root
    is_isolated = settings.isolation.first_user_id is not None
    os.umask(0o077)
    data_dir.mkdir(parents=True, exist_ok=True)
    with suppress(PermissionError):  # a folder that somebody else owns and shares with us
        data_dir.chmod(0o711 if is_isolated else 0o700)
    if is_isolated:
        _close(data_dir, but={artifacts.name, settings.dataset_root.name, settings.model_root.name})
        _close(artifacts, but={JOBS})
        _close(artifacts / JOBS)


def _close(folder: Path, *, but: Collection[str] = ()) -> None:
    """Take others' rights at what lies in a folder."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        with suppress(FileNotFoundError, PermissionError):
            mode = stat.S_IMODE(path.lstat().st_mode)
            if path.name not in but and not path.is_symlink() and mode & 0o007:
                path.chmod(mode & ~0o007)
