"""The database's address, which may hold a password, is known to dispatcher and runners alone."""

import os
from pathlib import Path

import pytest

from tests.support.live_service import LiveService
from tests.support.processes import descendants
from tests.workers.conftest import SECRET, Clusters
from xsam.services.jobs.states import JobState

pytestmark = pytest.mark.ray


def test_database_url__reaches_no_process_of_ray_by_environment_or_command_and_no_file(
    live: LiveService, clusters: Clusters
) -> None:
    job_id = live.submit(epochs=1, resources={"num_workers": 2})
    assert live.finish(job_id).state == JobState.SUCCEEDED
    below = descendants(os.getpid())
    assert {"ray::RankWorker", "ray::JobRunner"} <= {title.split(".")[0] for title in below.values()}
    for pid, title in below.items():
        assert SECRET not in title
        assert SECRET.encode() not in _environment(pid), title
    files = [path for path in clusters.ray_folder.rglob("*") if path.is_file() and not path.is_symlink()]
    files += [path for path in live.settings.artifact_root.rglob("*") if path.is_file()]
    assert {"raylet.out", "rank-0.log"} <= {path.name for path in files}
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""  # it has ended
