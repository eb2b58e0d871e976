"""The commands against a real server, as a shell would call them."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.support import planning
from tests.support.jobs import claim
from tests.support.row_runner import RowRunner
from xsam.api.cli.main import app
from xsam.api.cli.show import out
from xsam.api.client import Client
from xsam.api.http.health import VERSION
from xsam.services.cluster.service import NodeSeen
from xsam.services.cluster.traits import NodeTraits
from xsam.services.db.session import Database
from xsam.services.jobs.states import JobState

Command = Callable[..., Result]
HEARS_CTRL_C = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("xsam.api", run_name="__main__", alter_sys=True)
"""
"""`python -m xsam.api` that hears Ctrl-C even if the tests run in the background of a shell, where it is ignored."""


@pytest.fixture
def xsam(url: str, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setenv("XSAM_URL", url)
    monkeypatch.setattr(out, "width", 120)
    runner = CliRunner()
    return lambda *words, **options: runner.invoke(app, [str(word) for word in words], **options)


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text("name: from file\nepochs: 2\noptimizer: {variant: sam, rho: 0.2, base: {name: sgd, lr: 1e-2}}\n")
    return path


def test_submit__queues_the_file_and_says_what_next(xsam: Command, client: Client, job_file: Path, url: str) -> None:
    result = xsam("submit", job_file)
    (job,) = client.list()
    assert result.exit_code == 0
    assert (job.name, job.spec.epochs, job.spec.optimizer.base.lr) == ("from file", 2, 0.01)
    assert f"Job {job.id} is queued" in result.stdout
    assert f"xsam logs -f {job.id} --url {url}" in result.stdout


def test_submit__set_changes_fields_at_any_depth(xsam: Command, client: Client, job_file: Path) -> None:
    result = xsam(
        "submit", job_file, "--set", "optimizer.rho=0.5", "--set", "resources.num_workers=2", "--set", "labels.a=b"
    )
    assert result.exit_code == 0
    (job,) = client.list()
    assert getattr(job.spec.optimizer, "rho", None) == 0.5
    assert job.spec.resources.num_workers == 2
    assert job.labels == {"a": "b"}


def test_submit__reads_standard_input_and_prints_json(xsam: Command) -> None:
    result = xsam("submit", "-", "--output", "json", input='{"epochs": 7}')
    assert json.loads(result.stdout)["spec"]["epochs"] == 7


def test_submit__with_a_key_twice_is_one_job(xsam: Command, client: Client, job_file: Path) -> None:
    for _ in range(2):
        assert xsam("submit", job_file, "--idempotency-key", "nightly").exit_code == 0
    assert len(list(client.list())) == 1


def test_submit__names_each_wrong_field(xsam: Command, job_file: Path) -> None:
    result = xsam("submit", job_file, "--set", "optimizer.rho=-1", "--set", "epoch=3")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "Error: optimizer.rho must be greater than 0",
        "Error: epoch is not a known field",
    ]


def test_submit__follow_shows_epochs_and_the_outcome(
    xsam: Command, client: Client, runner: RowRunner, job_file: Path
) -> None:
    def run() -> None:
        while not (jobs := list(client.list())):
            time.sleep(0.01)
        runner.run(jobs[0].id)

    thread = threading.Thread(target=run)
    thread.start()
    result = xsam("submit", job_file, "--follow")
    thread.join()

    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[1].startswith("from file: epoch 1/2  loss train 1.000 eval 1.500  accuracy 50.0 %  alpha* 1.10")
    assert lines[2].startswith("from file: epoch 2/2")
    assert "succeeded: accuracy 90.0 %, best 90.0 % in epoch 2, 3.5 s, 40 gradient evaluations" in lines[3]


def test_submit__follow_of_a_job_that_fails_exits_1(
    xsam: Command, client: Client, runner: RowRunner, job_file: Path
) -> None:
    job = client.submit({"name": "from file", "epochs": 2, "optimizer": {"variant": "sgd"}}, idempotency_key="k")
    runner.fail(runner.claim(job.id), "loss is [nan]")
    job_file.write_text("{name: from file, epochs: 2, optimizer: {variant: sgd}}")
    result = xsam("submit", job_file, "-f", "--idempotency-key", "k")
    assert result.exit_code == 1
    assert "failed: user: loss is [nan]" in result.stdout


def test_submit__ctrl_c_detaches_and_the_job_goes_on(
    client: Client, runner: RowRunner, job_file: Path, url: str
) -> None:
    command = [sys.executable, "-c", HEARS_CTRL_C, "submit", str(job_file), "--follow", "--url", url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        job_id = process.stdout.readline().split()[1]
        lease = runner.claim(job_id)
        runner.report(lease, 1)
        assert "epoch 1/2" in process.stdout.readline()  # it follows
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0
    assert f"Detached; job {job_id} goes on." in stderr
    assert f"xsam cancel {job_id} --url {url}" in stdout
    assert client.get(job_id).wish is None


def test_list__shows_and_filters(xsam: Command, client: Client, runner: RowRunner) -> None:
    done = client.submit({"name": "done", "labels": {"p": "x"}, "epochs": 2})
    runner.run(done.id)
    client.submit({"name": "waits", "optimizer": {"variant": "sgd", "base": {"name": "adamw"}}})
    both = xsam("list").stdout.splitlines()
    assert [line.split()[1] for line in both] == ["name", "waits", "done"]
    assert "90.0 %" in both[2]
    assert "sgd adamw" in both[1]
    assert "waits" not in xsam("list", "--state", "succeeded", "--label", "p=x").stdout
    assert json.loads(xsam("list", "--name", "done", "-o", "json").stdout)[0]["id"] == done.id


def test_list__sorts_searches_and_counts(xsam: Command, client: Client, runner: RowRunner) -> None:
    runner.run(client.submit({"name": "second", "epochs": 2}).id)
    client.submit({"name": "first", "optimizer": {"variant": "sam"}})
    lines = xsam("list", "--sort", "name").stdout.splitlines()
    assert [line.split()[1] for line in lines] == ["name", "first", "second"]
    assert "second" not in xsam("list", "--q", "FIR", "--optimizer", "sam", "--since", "2020-01-01").stdout
    counted = xsam("list", "--count", "state").stdout.split()
    assert counted == ["state", "jobs", "queued", "1", "succeeded", "1", "all", "2"]
    assert json.loads(xsam("list", "--count", "user", "-o", "json").stdout)["num"] == 2


def test_cancel__dry_run_only_counts(xsam: Command, client: Client) -> None:
    job = client.submit({"name": "sweep 1"})
    result = xsam("cancel", "--q", "sweep", "--dry-run")
    assert result.stdout == f"1 jobs: 1 queued; 1 of {job.submitted_by}.\n"
    assert client.get(job.id).state == "queued"


def test_list__without_jobs_keeps_stdout_empty(xsam: Command) -> None:
    result = xsam("list")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "No jobs.\n")
    assert json.loads(xsam("list", "-o", "json").stdout) == []


def test_list__fits_a_narrow_terminal_without_cutting_ids(
    xsam: Command, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(out, "width", 80)
    job = client.submit({"name": "a name that is much too long for such a small screen"})
    lines = xsam("list").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1].split()[0] == job.id
    assert "queued" in lines[1]


def test_show__tells_state_result_and_history(xsam: Command, client: Client, runner: RowRunner) -> None:
    job = client.submit({"name": "noisy", "labels": {"p": "x"}, "epochs": 2})
    runner.run(job.id)
    shown = xsam("show", job.id).stdout
    for part in (job.id, "noisy", "succeeded", "small_cnn on digits", "2 of 2", "p=x", "alpha* 1.20", "submitted"):
        assert part in shown
    assert json.loads(xsam("show", job.id, "--output", "json").stdout)["id"] == job.id


def test_show__markup_in_a_message_is_text(xsam: Command, client: Client, runner: RowRunner) -> None:
    job = client.submit({})
    runner.fail(runner.claim(job.id), "shape [3, 3] is not [/red] square")
    assert "shape [3, 3] is not [/red] square" in xsam("show", job.id).stdout


def test_logs__print_and_follow(xsam: Command, client: Client, runner: RowRunner) -> None:
    job = client.submit({})
    lease = runner.claim(job.id)
    runner.write_log(lease, "one\ntwo [bold]")
    runner.complete(lease)
    printed = xsam("logs", job.id).stdout
    assert [line.split(" ", 1)[1] for line in printed.splitlines()] == ["[rank 0] one", "[rank 0] two [bold]"]
    assert xsam("logs", "-f", job.id).stdout == printed
    assert xsam("logs", job.id, "--tail", 1).stdout == printed.splitlines(keepends=True)[-1]


def test_cancel__says_what_became_of_the_job(xsam: Command, client: Client, runner: RowRunner) -> None:
    queued, running = client.submit({}), client.submit({})
    runner.claim(running.id)
    assert "is cancelled" in xsam("cancel", queued.id).stdout
    assert "was asked to stop" in xsam("cancel", running.id).stdout
    assert client.get(running.id).wish == "cancel"
    assert client.get(queued.id).state == JobState.CANCELLED


@pytest.mark.parametrize("command", ["show", "logs", "cancel"])
def test_unknown_job__is_one_sentence(xsam: Command, command: str) -> None:
    result = xsam(command, "nosuchjob")
    assert (result.exit_code, result.stderr) == (1, "Error: no job nosuchjob\n")


def test_no_server__says_how_to_start_one(xsam: Command) -> None:
    result = xsam("list", "--url", "http://127.0.0.1:9")
    assert result.exit_code == 1
    assert "Start it with `xsam serve`" in result.stderr


@pytest.mark.parametrize("words", [["lst"], ["submit"], ["list", "--state", "done"], ["list", "--label", "x"]])
def test_usage_errors__exit_2(xsam: Command, words: list[str]) -> None:
    assert xsam(*words).exit_code == 2


def test_version_and_help(xsam: Command) -> None:
    assert xsam("--version").stdout == f"xsam {VERSION}\n"
    shown = xsam("--help").stdout
    assert all(name in shown for name in ("serve", "submit", "list", "show", "logs", "cancel", "demo"))


def test_logs__finds_lines_with_their_numbers(xsam: Command, client: Client, runner: RowRunner) -> None:
    job = client.submit({})
    runner.write_log(runner.claim(job.id), "one\nError: two\nthree")
    result = xsam("logs", job.id, "--find", "error")
    assert result.stdout.split()[0] == "2"
    assert "1 of 1 lines with it." in result.stderr
    assert len(xsam("logs", job.id, "--from-line", "2").stdout.splitlines()) == 2


def test_attention__names_what_needs_a_look(xsam: Command, client: Client, runner: RowRunner) -> None:
    assert "Nothing needs attention." in xsam("attention").stderr
    study = client.studies.submit({"preset": "rho", "name": "held"})
    client.studies.pause(study.id)
    assert xsam("attention").stdout.split() == ["paused", study.id, "held"]
    [paused] = json.loads(xsam("attention", "-o", "json").stdout)["paused"]
    assert paused == {"id": study.id, "name": "held"}
    assert client.attention().is_needed


def test_attention__names_the_kind_of_gpu_of_which_a_team_holds_its_quota(
    xsam: Command, client: Client, database: Database
) -> None:
    planning.report_nodes(database, NodeSeen("node-1", "gpu-1", 8, 4, traits=NodeTraits("H100")))
    client.admin.create_team("default", quota={"gpus_by_kind": {"H100": 1}})
    claim(database, client.submit({"resources": {"gpus_per_worker": 1}}).id)
    assert xsam("attention").stdout.split() == ["quota", "reached", "gpus", "of", "kind", "h100", "1", "of", "1"]


def test_status__says_who_leads(xsam: Command) -> None:
    result = xsam("status")
    assert "leader" in result.stdout
    assert "nothing starts" in result.stdout
    assert json.loads(xsam("status", "-o", "json").stdout)["database"]["is_current"]
