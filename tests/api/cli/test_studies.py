"""`xsam study` against a real server."""

from pathlib import Path

import optuna
import pytest
from typer.testing import CliRunner

from tests.support import studies
from tests.support.studies import HandRunner, submit
from xsam.api.cli import study_views
from xsam.api.cli.main import app
from xsam.api.cli.show import out
from xsam.services.db.session import Database
from xsam.services.studies import trials
from xsam.services.studies.trials import Result

SPACE = {
    "optimizer.rho": {"type": "log_uniform", "low": 0.01, "high": 0.5},
    "optimizer.ascent_steps": {"type": "choice", "values": [1, 3]},
}


@pytest.fixture
def run(url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XSAM_URL", url)
    monkeypatch.setattr(out, "width", 160)

    def call(*arguments: object, code: int = 0) -> str:
        result = CliRunner().invoke(app, ["study", *map(str, arguments)])
        assert result.exit_code == code, result.output
        return result.output

    return call


@pytest.fixture
def study(database: Database) -> HandRunner:
    """A running study of ten trials."""
    runner = HandRunner.start(database, submit(database, space=SPACE, num_trials=20, name="digits"))
    for config in range(10):
        point = {"optimizer.rho": round(0.02 + 0.04 * config, 6), "optimizer.ascent_steps": (1, 3)[config % 2]}
        runner.run(point, 0.9 - abs(point["optimizer.rho"] - 0.2), config=config)
    return runner


def test_submit__a_preset_prints_what_to_do_next(run):
    output = run("submit", "--preset", "rho", "--set", "base.epochs=2")
    assert "12 trials planned" in output
    assert "xsam study trials" in output


def test_submit__preview_queues_nothing(run):
    assert "about 3,696 gradient evaluations" in run("submit", "--preset", "rho", "--set", "base.epochs=7", "--preview")
    assert "No studies." in run("list")


def test_submit__a_file(run, tmp_path: Path):
    path = tmp_path / "study.yaml"
    path.write_text("preset: rho\nspace: {optimizer.rho: {type: uniform, low: 2, high: 1}}\n")
    assert "low must be below high" in run("submit", path, code=1)


def test_show__draws_facts_sparkline_and_map(run, study: HandRunner):
    output = run("show", study.study_id)
    assert "10 of 20 done" in output
    assert "best so far" in output
    assert "optimizer.ascent_steps (down) x optimizer.rho (across)" in output
    assert "0.880" in output


def test_list_of_jobs__sends_the_owner_of_a_study_to_it(run, study: HandRunner):
    result = CliRunner().invoke(app, ["list"])
    assert (result.exit_code, result.stdout, result.stderr) == (
        0,
        "",
        "No jobs. There are studies: `xsam study list`.\n",
    )


def test_list_and_trials__are_tables(run, study: HandRunner):
    assert "digits" in run("list")
    rows = run("trials", study.study_id, "--sort=-value", "--limit", 3).splitlines()
    assert "0.8800" in rows[1]


def test_trials__exports(run, study: HandRunner, tmp_path: Path):
    run("trials", study.study_id, "--export", tmp_path / "all.csv")
    assert len((tmp_path / "all.csv").read_text().splitlines()) == 11


def test_export__opens_in_optuna(run, study: HandRunner, tmp_path: Path):
    pruned = study.claim(study.propose({"optimizer.rho": 0.3, "optimizer.ascent_steps": 3}, config=20))
    study.measure(pruned, [0.1, 0.2])
    with study.database.unit_of_work() as session:
        trials.finish(session, pruned, Result({"train_s": 1.0}, 0.2, is_stopped_early=True))
    study.fail(study.claim(study.propose({"optimizer.rho": 0.4, "optimizer.ascent_steps": 3}, config=21)))
    study.propose({"optimizer.rho": 0.4, "optimizer.ascent_steps": 3}, config=22)
    path = tmp_path / "study.db"
    told = run("export", study.study_id, "--to", "optuna", "-o", path)
    [summary] = optuna.get_all_study_summaries(f"sqlite:///{path}")
    assert summary.study_name in told
    loaded = optuna.load_study(study_name=summary.study_name, storage=f"sqlite:///{path}")
    before = studies.load(study.database, study.study_id)
    assert len(loaded.trials) == len(before)
    done = [trial for trial in loaded.trials if trial.state.name == "COMPLETE"]
    own = {trial.number: trial for trial in before}
    for trial in done:
        source = own[trial.user_attrs["number"]]
        assert (trial.value, trial.params["optimizer.rho"]) == (source.value, source.point["optimizer.rho"])
        assert trial.user_attrs["arm"] == source.arm
    assert {one.state.name for one in loaded.trials} >= {"COMPLETE", "PRUNED", "FAIL", "WAITING"}
    [stopped] = [trial for trial in loaded.trials if trial.state.name == "PRUNED"]
    assert stopped.intermediate_values == {1: 0.1, 2: 0.2}
    assert isinstance(stopped.distributions["optimizer.rho"], optuna.distributions.FloatDistribution)
    assert loaded.best_value == max(trial.value for trial in done)
    assert "allowed is the name of a new file" in run("export", study.study_id, "--to", "optuna", "-o", path, code=1)


def test_export__writes_tables(run, study: HandRunner, tmp_path: Path):
    run("export", study.study_id, "-o", tmp_path / "all.csv")
    assert len((tmp_path / "all.csv").read_text().splitlines()) == 11


def test_verbs__say_what_became_of_it(run, study: HandRunner):
    assert "running (pause)" in run("pause", study.study_id)
    assert "is running" in run("resume", study.study_id)
    assert "is running" in run("concurrency", study.study_id, 3)
    wider = "optimizer.rho={type: log_uniform, low: 0.01, high: 0.9}"
    assert "is running" in run("extend", study.study_id, "--trials", 2, "--set", wider)
    assert "is running" in run("retry-failed", study.study_id)
    assert "running (stop)" in run("stop", study.study_id)
    assert "is running" in run("cancel", study.study_id)


def test_plot__writes_a_page(run, study: HandRunner, tmp_path: Path):
    run("plot", study.study_id, "-o", tmp_path / "plots.html")
    assert "optimizer.rho" in (tmp_path / "plots.html").read_text()
    assert "plots.png ends in .png; allowed is .html" in run(
        "plot", study.study_id, "-o", tmp_path / "plots.png", code=1
    )


def test_promote__makes_a_job_of_the_winner(run, study: HandRunner):
    output = run("promote", study.study_id, "--set", "epochs=30")
    assert "30 epochs" in output
    assert "rho=0.18" in output or "rho=0.22" in output


def test_unknown_study__is_a_sentence(run):
    assert "no study nobody" in run("show", "nobody", code=1)


def test_sparkline__fits_and_keeps_its_ends():
    assert study_views.sparkline([0.0, 0.5, 1.0]) == "▁▄█" or study_views.sparkline([0.0, 0.5, 1.0]) == "▁▅█"
    assert len(study_views.sparkline(list(range(1000)))) <= 60
    assert study_views.sparkline([1.0, 1.0]) == "██"
