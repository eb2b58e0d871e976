import json

import pytest
from typer.testing import CliRunner

from tests.support import planning
from xsam.api.cli.main import app
from xsam.services.cluster import leader
from xsam.services.cluster.service import NodeSeen
from xsam.services.db.session import Database
from xsam.services.settings import Settings


@pytest.fixture(autouse=True)
def _environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XSAM_DATA_DIR", str(settings.data_dir))


def test_doctor__says_what_to_do_and_fails_where_jobs_are_not_run(url: str) -> None:
    done = CliRunner().invoke(app, ["doctor", "--api", url])
    assert done.exit_code == 1
    assert "none is alive" in done.stdout
    assert "python -m xsam.workers" in done.stdout


def test_doctor__succeeds_on_a_sound_service(url: str, database: Database) -> None:
    planning.report_nodes(database, NodeSeen("n1", "node-1", 4, 0))
    with database.unit_of_work() as session:
        leader.acquire(session, leader.DISPATCH, planning.DISPATCHER, lease_s=60)
    done = CliRunner().invoke(app, ["doctor", "--api", url, "--output", "json"])
    assert done.exit_code == 0, done.output
    assert {one["level"] for one in json.loads(done.stdout)["findings"]} == {"ok"}


def test_doctor__finds_an_api_that_is_not_there(database: Database) -> None:
    done = CliRunner().invoke(app, ["doctor", "--api", "http://127.0.0.1:1"])
    assert "nothing answers" in done.stdout
