"""Folders of a team, looked at as its user and as another one."""

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from xsam.services.artifacts.store import JobFolder
from xsam.workers.isolation.folders import close_job, open_job, open_team
from xsam.workers.isolation.team_user import IsolationError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="not available: only root can give files to other users")

RED, BLUE = 61_001, 61_002


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that other users get to, unlike pytest's own."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


def test_job__is_written_by_its_team_and_reached_by_no_other(reachable: Path) -> None:
    folder = JobFolder(reachable / "artifacts", "abc")
    open_job(folder, RED, attempt=1)
    for own in (folder.checkpoints, folder.path / "weights", folder.logs(1)):
        assert _can(RED, f"open('{own}/file', 'w')")
        assert not _can(BLUE, f"open('{own}/file')")
    for carrying in (folder.path, folder.attempt(1), folder.path.parent, folder.root):
        assert not _can(RED, f"open('{carrying}/file', 'w')"), "a link there would be the service's to follow"
        assert not _can(BLUE, f"__import__('os').listdir('{carrying}')")


def test_job_from_before__becomes_its_teams_without_following_links(reachable: Path) -> None:
    folder = JobFolder(reachable / "artifacts", "abc")
    (folder.checkpoints / "step-1").mkdir(parents=True)
    (folder.checkpoints / "step-1" / "model").write_text("weights")
    foreign = reachable / "foreign"
    foreign.write_text("not the team's")
    (folder.checkpoints / "link").symlink_to(foreign)
    open_job(folder, RED, attempt=2)
    assert _can(RED, f"open('{folder.checkpoints}/step-1/model', 'a')")
    assert not _can(BLUE, f"open('{folder.checkpoints}/step-1/model')")
    assert foreign.stat().st_uid == 0
    open_job(folder, RED, attempt=3)


def test_closed_job__is_open_to_the_services_group(reachable: Path) -> None:
    folder = JobFolder(reachable / "artifacts", "abc")
    open_job(folder, RED, attempt=1)
    assert _can(RED, f"os.mkdir('{folder.checkpoints}/own', 0o700)")
    (made,) = folder.checkpoints.glob("own*")
    assert stat.S_IMODE(made.stat().st_mode) & 0o070 == 0
    close_job(folder, 1)
    assert (made.stat().st_mode & 0o070, made.stat().st_gid) == (0o070, folder.root.stat().st_gid)


def test_team_on_a_node__has_a_home_and_reads_its_code_alone(reachable: Path) -> None:
    red, blue = open_team(reachable / "code", RED), open_team(reachable / "code", BLUE)
    (red.code / "task.py").write_text("")
    assert _can(RED, f"open('{red.home}/file', 'w')")
    assert _can(RED, f"open('{red.code}/task.py')")
    assert not _can(RED, f"open('{red.code}/task.py', 'a')")
    assert not _can(BLUE, f"open('{red.code}/task.py')")
    assert not _can(BLUE, f"__import__('os').listdir('{red.home}')")
    assert red.code != blue.code


def test_node_folder_of_somebody_else__is_refused(reachable: Path) -> None:
    code_root = reachable / "code"
    code_root.mkdir()
    os.chown(code_root, BLUE, BLUE)
    with pytest.raises(IsolationError, match="belongs to another user"):
        open_team(code_root, RED)


def _can(user: int, expression: str) -> bool:
    """Return whether a user can do something in Python."""
    code = f"import os; os.setgroups([{user}]); os.setgid({user}); os.setuid({user}); {expression}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
