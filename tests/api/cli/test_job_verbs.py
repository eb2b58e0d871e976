"""`xsam why, queue, cluster, usage` and the verbs, against a real server."""

import json
from collections.abc import Callable

import pytest
from typer.testing import CliRunner

from tests.support import planning
from tests.support.row_runner import RowRunner
from xsam.api.cli.main import app
from xsam.api.cli.show import out
from xsam.api.client import Client
from xsam.services.cluster.service import ForeignHolding, NodeSeen
from xsam.services.cluster.traits import NodeTraits
from xsam.services.db.session import Database
from xsam.services.jobs.states import JobState

Run = Callable[..., str]
NODE = NodeSeen("n1", "node-1", num_cpus=4, num_gpus=0)
WHOLE_NODE = {"resources": {"cpus_per_worker": 4}}


@pytest.fixture
def run(url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("XSAM_URL", url)
    monkeypatch.setattr(out, "width", 160)

    def call(*arguments: object, code: int = 0) -> str:
        result = CliRunner().invoke(app, [*map(str, arguments)])
        assert result.exit_code == code, result.output
        return result.output

    return call


@pytest.fixture
def line(client: Client, database: Database) -> list[str]:
    """Ids of one running job and two that wait for its place."""
    nodes = planning.report_nodes(database, NODE)
    ids = [client.submit(WHOLE_NODE).id]
    planning.decide(database, nodes)
    ids += [client.submit({**WHOLE_NODE, "name": f"job {n}"}).id for n in range(2)]
    planning.decide(database, nodes)
    return ids


def test_verbs__on_one_job_say_what_came_of_it(run: Run, client: Client) -> None:
    job = client.submit({})
    assert f"Job {job.id} is paused." in run("pause", job.id)
    assert f"Job {job.id} is queued." in run("resume", job.id)
    assert f"Job {job.id} is cancelled." in run("cancel", job.id)
    assert f"Job {job.id} is queued." in run("retry", job.id)
    assert "only failed and cancelled" in run("retry", job.id, code=1)


def test_verbs__on_a_running_job_say_that_it_was_asked(run: Run, client: Client, runner: RowRunner) -> None:
    job = client.submit({})
    runner.claim(job.id)
    assert "was asked to save its state and pause" in run("pause", job.id)
    assert "was asked to stop" in run("cancel", job.id)


def test_verbs__on_several_jobs_report_each_and_fail_if_one_was_refused(
    run: Run, client: Client, runner: RowRunner
) -> None:
    first, second, done = (client.submit({"labels": {"sweep": "7"}}).id for _ in range(3))
    runner.run(done)
    output = run("pause", "--label", "sweep=7", "--state", "queued")
    assert all(f"{job_id}  paused" in output for job_id in (first, second))
    output = run("cancel", first, done, code=1)
    assert f"{first}  cancelled" in output
    assert f"job {done} is succeeded" in output
    assert client.get(second).state is JobState.PAUSED


@pytest.mark.parametrize("arguments", [["cancel"], ["pause", "a1", "--name", "x"], ["retry", "--label", "novalue"]])
def test_verbs__need_ids_or_a_filter(run: Run, arguments: list[str]) -> None:
    run(*arguments, code=2)


def test_set__changes_priority_and_labels(run: Run, client: Client) -> None:
    job = client.submit({"labels": {"a": "1"}})
    run("set", job.id, "--priority", "4", "--set-label", "b=2", "--set-label", "a=")
    changed = client.get(job.id)
    assert (changed.priority, changed.labels) == (4, {"b": "2"})
    run("set", job.id, code=2)


def test_clone__queues_a_copy_with_changes(run: Run, client: Client) -> None:
    job = client.submit({"name": "first"})
    assert "is queued" in run("clone", job.id, "--set", "epochs=3", "--set", "name=second")
    [copy] = client.list(name="second")
    assert copy.spec.epochs == 3
    assert "epochs" in run("clone", job.id, "--set", "epochs=0", code=1)


def test_why__says_it_in_a_sentence_and_in_facts(run: Run, line: list[str]) -> None:
    output = run("why", line[2])
    assert "Waiting for 4 CPUs" in output
    assert "2 of 2" in output
    assert line[0] in output
    assert json.loads(run("why", line[2], "-o", "json"))["code"] == "insufficient_resources"


def test_queue__shows_the_line(run: Run, client: Client, line: list[str]) -> None:
    output = run("queue")
    assert output.index(line[1]) < output.index(line[2])
    assert "4 CPUs" in output
    assert "--after 1" in run("queue", "--limit", "1")
    for job_id in line[1:]:
        client.cancel(job_id)
    assert "Nobody waits." in run("queue")


def test_cluster__shows_machines_and_jobs(run: Run, line: list[str]) -> None:
    output = run("cluster")
    assert "0 of 0 GPUs and 4 of 4 CPUs are used." in output
    assert line[0] in output
    assert "node-1" in output


def test_cluster__tells_nodes_of_a_host_apart_and_names_what_is_missing(run: Run, database: Database) -> None:
    held = ForeignHolding("placement group theirs of Ray job 02000000", num_gpus=1.0, num_cpus=2.0)
    traits = NodeTraits("A100", 42.9, (("zone", "b"),))
    first = NodeSeen("aaaaaaaa1", "node-1", num_cpus=4, num_gpus=2, foreign=(held,), traits=traits)
    planning.report_nodes(database, first, NodeSeen("bbbbbbbb2", "node-1", 4, 2, set_aside="torch sees 0 of them"))
    output = run("cluster")
    assert "node-1 aaaaaa" in output
    assert "0/2 A100 42.9 GB" in output
    assert "zone=b" in output
    assert "node-1 bbbbbb" in output
    assert "not ours: 1 GPUs, 2 CPUs: placement group theirs of Ray job 02000000" in output
    assert "GPUs set aside: torch sees 0 of them" in output


def test_cluster__that_nobody_reports_says_so(run: Run) -> None:
    assert "No dispatcher is running; last seen never" in run("cluster")


def test_usage__sums_by_user_or_shows_days(run: Run, client: Client, runner: RowRunner) -> None:
    for _ in range(2):
        runner.run(client.submit({}).id)
    whole, days = run("usage"), run("usage", "--by-day")
    assert "attempts" in whole
    assert whole.count(" to ") >= 1
    assert "of recent usage" in days
    assert json.loads(run("usage", "-o", "json"))["items"][0]["num_attempts"] == 2
