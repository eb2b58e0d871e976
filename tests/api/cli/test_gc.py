"""`xsam gc`, `xsam team set --keep` and what `xsam cluster` and `xsam pull` say of it, against a real server."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support.row_runner import RowRunner
from xsam.api.cli.main import app
from xsam.api.client import Client
from xsam.api.client.errors import ApiError
from xsam.services.artifacts.store import JobFolder
from xsam.services.db.session import Database
from xsam.services.retention import collecting, fill
from xsam.services.settings import Settings


def _xsam(url: str, *words: str) -> str:
    done = CliRunner().invoke(app, [*words, "--url", url])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def ended(client: Client, runner: RowRunner, settings: Settings, database: Database) -> str:
    """A job that has ended, with weights of 2 KiB."""
    job_id = client.submit({}).id
    runner.run(job_id)
    weights = JobFolder(settings.artifact_root, job_id).path / "weights" / "best.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"w" * 2048)
    return job_id


def test_gc__says_what_would_go_and_lets_it_go(
    url: str, client: Client, ended: str, database: Database, settings: Settings, tmp_path: Path
) -> None:
    client.admin.create_team("default")
    assert "keeps bytes 0" in _xsam(url, "team", "set", "default", "--keep", "bytes=0")
    assert "1 jobs that ended are not measured yet" in _xsam(url, "gc", "--dry-run")
    collecting.measure(database, settings.store_place.open(), limit=10)
    (foretold,) = json.loads(_xsam(url, "gc", "--dry-run", "-o", "json"))
    assert foretold == {"team": "default", "kind": "weights", "num": 1, "num_bytes": 2048}
    with database.unit_of_work() as session:
        fill.note(session, settings.store_place.open())
    assert "2.0 KiB" in _xsam(url, "cluster")
    assert "2.0 KiB" in _xsam(url, "gc")
    assert "Nothing was kept long enough" in _xsam(url, "gc")
    said = _xsam(url, "pull", ended, "--folder", str(tmp_path / "pulled"))
    assert "Its weights were kept long enough and are gone since" in said
    assert client.artifacts_and_gone(ended).gone.weights_at is not None


@pytest.mark.parametrize("given", ["logs=soon", "pictures=3", "logs"])
def test_keep__names_what_is_wrong_and_what_is_allowed(url: str, given: str) -> None:
    done = CliRunner().invoke(app, ["team", "set", "default", "--keep", given, "--url", url])
    assert done.exit_code == 1
    assert f"--keep is {given!r}; allowed are" in done.output.replace("\n", " ")


def test_keep__changes_only_what_it_names(client: Client) -> None:
    client.admin.create_team("red")
    client.admin.change_team("red", retention={"log_days": 3, "row_days": 900})
    team = client.admin.change_team("red", retention={"log_days": None})
    assert team.retention.model_dump(exclude_none=True) == {"row_days": 900}
    assert client.admin.create_team("red", weight=2).retention == team.retention
    with pytest.raises(ApiError, match=r"retention\.log_days"):
        client.admin.change_team("red", retention={"log_days": 0})
