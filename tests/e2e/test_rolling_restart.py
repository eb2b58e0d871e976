"""An operator restarts the API and then the dispatcher of a team's service: a running job does not notice."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import two_teams
from tests.support.served import wait_until
from tests.support.team_cluster import TeamService, team_service
from xsam.api.client import Client
from xsam.services.jobs.states import JobState

pytestmark = [pytest.mark.e2e, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

LONG = {"epochs": 100_000, "optimizer": {"variant": "sgd"}, "checkpoint": {"every_epochs": 1000}}
"""No checkpoint is near, so a run that had to start again would show it."""
SHORT = {"epochs": 1, "optimizer": {"variant": "sgd"}}


@pytest.fixture
def team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TeamService]:
    with tempfile.TemporaryDirectory(prefix="xsam-ray-", dir="/tmp") as folder:  # short: Ray's sockets lie in it
        monkeypatch.setenv("RAY_TMPDIR", folder)
        environment = {**os.environ, **two_teams.VARIABLES}
        where = {"num_cpus": 2, "num_gpus": 0, "environment": environment}
        with team_service(tmp_path / "data", "--auth", "none", **where) as started:
            yield started


def test_running_job__goes_on_untouched_through_a_new_api_and_a_new_dispatcher(team: TeamService) -> None:
    with Client(team.served.url) as client:
        job_id = client.submit(LONG).id

        def epochs() -> int:
            return client.get(job_id).progress.epochs_done

        def goes_on() -> bool:
            done = epochs()
            wait_until(lambda: epochs() > done + 1)
            return client.get(job_id).attempt == 1

        wait_until(lambda: epochs() >= 2)
        processes = _processes(client, job_id)
        team.restart_api()
        assert goes_on()
        team.replace_dispatcher()
        assert goes_on()
        assert client.wait(client.submit(SHORT).id).state is JobState.SUCCEEDED, "the new dispatcher places jobs"
        assert _processes(client, job_id) == processes
        client.cancel(job_id)
        ended = client.wait(job_id)
        assert (ended.state, ended.attempt) == (JobState.CANCELLED, 1)
        kinds = [event.kind for event in client.events(job_id)]
        assert (kinds.count("started"), kinds.count("training")) == (1, 1)
        stored = [row.epoch for row in client.metrics(job_id)]
        assert stored == list(range(1, len(stored) + 1))
        assert len(stored) >= ended.progress.epochs_done


def _processes(client: Client, job_id: str) -> list[object]:
    return [event.data["rank_pid"] for event in client.events(job_id) if event.kind == "training"]
