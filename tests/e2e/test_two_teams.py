"""Three users of two teams share a cluster with eight logical GPUs, set up as README says, from the command line."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import two_teams
from tests.e2e.two_teams import Story
from tests.support.team_cluster import team_service
from xsam.api.cli import show
from xsam.api.client import Client
from xsam.services.jobs.states import JobState

pytestmark = [pytest.mark.e2e, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def ray_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="xsam-ray-", dir="/tmp") as folder:  # short: Ray's sockets lie in it
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield Path(folder)


def test_two_teams__share_a_cluster_by_quota_and_priority_and_see_only_their_own(
    tmp_path: Path, ray_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for console in (show.out, show.err):
        monkeypatch.setattr(console, "width", two_teams.WIDTH)
    environment = {**os.environ, **two_teams.VARIABLES}
    where = {"num_cpus": two_teams.NUM_GPUS, "num_gpus": two_teams.NUM_GPUS, "environment": environment}
    with team_service(tmp_path / "data", "--auth", "token", **where) as team:
        service = team.served
        story = Story(service, two_teams.first_admin_token(service))
        two_teams.found_teams(story)
        two_teams.fill_cluster(story)
        with story.at_rest("ann-big", "cat-big"):
            reasons = two_teams.wait_for_room(story)
            waiting = ("bob-big", "cat-small", "bob-urgent")
            assert [story.state(name) for name in waiting] == [JobState.QUEUED] * 3
            assert "Team vision has reached its quota (6 GPUs)" in reasons["bob-big"]
            assert "Team speech has reached its quota (4 GPUs)" in reasons["cat-small"]
            assert "Waiting for 2 GPUs" in reasons["bob-urgent"]
            assert "Position 1 of 3" in reasons["bob-urgent"]

            printed = two_teams.stay_apart(story)
            assert "team speech may hold 4" in printed["too much"]
            assert f"no job {story.jobs['ann-big']}" in printed["foreign cancel"]
            assert "your token sees team speech only" in printed["foreign list"]
            assert "no admin of this service" in printed["own quota"]
            assert "cat-big" in printed["cat's list"]
            assert not {"ann", "bob"} & set(printed["cat's list"].replace("-", " ").split())
            assert story.state("ann-big") is JobState.RUNNING

        two_teams.free_gpus(story)
        assert story.state("cat-small") is JobState.QUEUED  # GPUs are free, its team's quota is not
        two_teams.finish(story)
        assert story.states() == {
            "ann-big": JobState.CANCELLED,
            "cat-big": JobState.CANCELLED,
            "bob-big": JobState.SUCCEEDED,
            "cat-small": JobState.SUCCEEDED,
            "bob-urgent": JobState.SUCCEEDED,
        }
        assert _started_in_order(story, "bob-urgent", "bob-big", "cat-small")
    _assert_no_secret_in(story, tmp_path / "data", ray_folder)


def _started_in_order(story: Story, *names: str) -> bool:
    with Client(story.service.url, token=story.admin_token) as client:
        started = [client.get(story.jobs[name]).started_at for name in names]
    return None not in started and started == sorted(started)


def _assert_no_secret_in(story: Story, *folders: Path) -> None:
    """No token is in a log, a row, an artifact or a file of Ray's."""
    secrets = [token.encode() for token in (story.admin_token, *story.tokens.values())]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert {"api.log", "xsam.db", "raylet.out", "gcs_server.out"} <= {path.name for path in files}
    leaks = {str(path) for path in files for secret in secrets if secret in path.read_bytes()}
    assert leaks == set()
