"""An earlier state of this repository, exported from git, whose code can be run beside the present one."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMIT = "48dc035"
"""The state of main before retention, webhooks and what followed: the release that may still run during an upgrade."""
SCHEMA = "5d0b7e41c2f3"
"""Its newest migration."""
_ROOMS = ("services", "workers", "api")


class OldRelease:
    """Runs programs with the earlier code; third-party packages are those of this environment.

    Args:
        folder: where its tree is exported to.
    """

    def __init__(self, folder: Path) -> None:
        self._tree = folder / "tree"
        self._tree.mkdir()
        _export(self._tree)
        self._names = folder / "names"
        (self._names / "xsam").mkdir(parents=True)
        for room in _ROOMS:
            (self._names / "xsam" / room).symlink_to(self._tree / room)
        (self._names / "xsam" / "sdk").symlink_to(self._tree / "workers" / "sdk")

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        """Start Python with these words."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("XSAM_")}
        path = os.pathsep.join((str(self._names), str(self._tree)))
        return subprocess.Popen(
            [sys.executable, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self._tree,
            env={**inherited, "PYTHONPATH": path, **environment},
        )


def _export(target: Path) -> None:
    """Write the tree of the commit; skips the test where there is no git, or a clone without it."""
    git = shutil.which("git")
    if git is None:
        pytest.skip("no git, so the earlier release can't be had")
    archive = target.with_suffix(".tar")
    done = subprocess.run(
        [git, "-C", str(ROOT), "archive", "--output", str(archive), COMMIT], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"the earlier release {COMMIT} can't be had here: {done.stderr.strip()}")
    with tarfile.open(archive) as tar:
        tar.extractall(target, filter="data")
