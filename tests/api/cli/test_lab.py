"""`xsam lab` against a real server."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support import lab_runs
from xsam.api.cli.main import app
from xsam.api.cli.show import out
from xsam.services.db.session import Database
from xsam.services.teams.roles import Actor


@pytest.fixture
def run(url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XSAM_URL", url)
    monkeypatch.setattr(out, "width", 160)

    def call(*arguments: object, code: int = 0) -> str:
        result = CliRunner().invoke(app, ["lab", *map(str, arguments)])
        assert result.exit_code == code, result.output
        return result.output

    return call


def test_run__is_begun_listed_shown_and_cancelled(run) -> None:
    begun = run("run", "3b", "--scale", "digits", "--set", "epochs=2")
    run_id = begun.split()[2]
    assert f"Lab run {run_id} of figure 3b is running." in begun
    assert run_id in run("list")
    assert "XSAM reaches a higher test accuracy than SAM" in run("list")
    assert "methods  study  -" in run("show", run_id)
    assert "is cancelled" in run("cancel", run_id)
    assert "only one that has failed can be resumed" in run("resume", run_id, code=1)


def test_preview__counts_and_queues_nothing(run) -> None:
    said = run("run", "3b", "--scale", "paper", "--preview")
    assert "111 trials" in said
    usual = run("run", "3b", "--scale", "digits", "--preview")
    said = run("run", "3b", "--scale", "digits", "--rho", "0.1", "--rho", "0.4", "--rho-max-ratio", "3", "--preview")
    assert "30 trials" in usual
    assert "24 trials" in said
    assert "No runs yet" in run("list")


def test_job__is_looked_at_once_it_has_a_checkpoint(run, database: Database) -> None:
    job_id = lab_runs.with_checkpoint(database, Actor("root", "default"))
    assert "625" in run("run", "1a", "--job", job_id, "--preview")
    begun = run("run", "1a", "--job", job_id)
    assert "plane  plane  -" in run("show", begun.split()[2])
    assert "allowed are jobs of team default" in run("run", "1a", "--job", "abc", code=1)


def test_bad_input__is_named(run) -> None:
    assert "only figure 1a looks at a job" in run("run", "3b", "--job", "abc", code=1)
    assert "figure" in run("run", "9z", code=1)
    assert "base.epochs" in run("run", "3b", "--set", "epochs=0", code=1)
    assert "seeds" in run("run", "3b", "--seeds", "2", code=1)
    assert "only figures 3b and 3c vary rho" in run("run", "2", "--rho", "0.1", "--rho", "0.2", code=1)
    assert "rho_max_ratio" in run("run", "3b", "--rho-max-ratio", "0", code=1)


def test_report__is_written_of_what_has_succeeded(run, database: Database, tmp_path: Path) -> None:
    path = tmp_path / "lab.html"
    assert "no run has succeeded yet" in run("report", "-o", path, code=1)
    run_id = lab_runs.concluded(database, Actor("ann", "default"))
    assert "verdict  holds" in run("show", run_id)
    run("show", run_id, "--csv", tmp_path / "a.csv", "--svg", tmp_path / "a.svg")
    assert (tmp_path / "a.csv").read_text().startswith("start,x,y,k")
    assert (tmp_path / "a.svg").read_text().startswith("<svg")
    assert f"Wrote {path}: 1 runs" in run("report", "-o", path)
    assert "<strong>holds</strong>" in path.read_text()
