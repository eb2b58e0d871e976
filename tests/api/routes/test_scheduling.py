"""The queue, reasons, the cluster and usage over a real connection."""

from datetime import date

import httpx
import pytest

from tests.support import planning
from tests.support.row_runner import RowRunner
from xsam.api.client import Client
from xsam.api.client.errors import ApiError
from xsam.services.cluster.service import NodeSeen
from xsam.services.db.session import Database

NODE = NodeSeen("n1", "node-1", num_cpus=4, num_gpus=0)
WHOLE_NODE = {"resources": {"cpus_per_worker": 4}}


@pytest.fixture
def line(client: Client, database: Database) -> list[str]:
    """Ids of one running job and three that wait for its place."""
    nodes = planning.report_nodes(database, NODE)
    ids = [client.submit(WHOLE_NODE).id]
    planning.decide(database, nodes)
    ids += [client.submit({**WHOLE_NODE, "name": f"job {n}"}).id for n in range(3)]
    planning.decide(database, nodes)
    return ids


def test_why__explains_a_waiting_job_and_a_running_one(client: Client, line: list[str]) -> None:
    waiting = client.why(line[2])
    assert (waiting.code, waiting.position, waiting.num_in_line) == ("insufficient_resources", 2, 3)
    assert waiting.blocking_job_ids == [line[0]]
    running = client.why(line[0])
    assert (running.code, running.position) == ("running", None)


def test_why__of_an_unknown_job_is_not_found(client: Client) -> None:
    with pytest.raises(ApiError) as caught:
        client.why("nosuchjob")
    assert caught.value.code == "not_found"


def test_queue__is_read_page_by_page(client: Client, line: list[str]) -> None:
    first = client.queue(limit=2)
    assert first.next_position == 2
    rest = client.queue(after=first.next_position)
    assert [entry.job_id for entry in first.items + rest.items] == line[1:]


def test_cluster__shows_what_runs_where(client: Client, line: list[str]) -> None:
    found = client.cluster()
    assert (found.is_live, found.used_cpus, found.num_cpus) == (True, 4, 4)
    assert [job.job_id for node in found.nodes for job in node.jobs] == line[:1]


def test_usage__shows_what_was_used(client: Client, runner: RowRunner) -> None:
    job = client.submit({})
    runner.run(job.id)
    [item] = client.usage().items
    assert (item.team, item.num_attempts) == (job.team, 1)
    assert client.usage(since=date(2026, 1, 1), until=date(2026, 1, 2)).items == []
    assert client.usage(until=date.min).since == date.min


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/usage?since=yesterday", "since"),
        ("/v1/usage?until=0", "until"),
        ("/v1/usage?until=2026-02-30", "until"),
        ("/v1/usage?until=2026-03-01T00:00:00", "until"),
        ("/v1/usage?since=2026-03-02&until=2026-03-01", "since"),
        ("/v1/queue?limit=0", "limit"),
        ("/v1/queue?page=2", "page"),
        ("/v1/cluster?page=2", "page"),
    ],
)
def test_queries__that_are_wrong_are_refused(http: httpx.Client, path: str, field: str) -> None:
    answer = http.get(path)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_attempts__keep_how_each_ended(client: Client, runner: RowRunner) -> None:
    job = client.submit({})
    runner.fail(runner.claim(job.id), "first", is_retry=True)
    runner.fail(runner.claim(job.id), "second")
    assert [(one.number, one.outcome, one.message) for one in client.attempts(job.id)] == [
        (1, "user", "first"),
        (2, "user", "second"),
    ]


def test_cluster__over_time_and_what_it_was_for(client: Client, line: list[str]) -> None:
    [lane] = client.occupancy().nodes
    [block] = client.occupancy(node="n1").items
    assert (lane.host, block.job_id, block.num_cpus) == ("node-1", line[0], 4)
    [spent] = client.usage_sums(by="optimizer").items
    assert (spent.key, spent.num_attempts) == ("xsam", 1)
    assert client.samples(since="2020-01-01", until="2020-01-02").items == []
    with pytest.raises(ApiError, match="up to a year"):
        client.occupancy(since="2020-01-01")


def test_status__is_of_the_service_as_a_whole(client: Client, line: list[str]) -> None:
    found = client.status()
    assert (found.ray.is_live, found.ray.num_nodes, found.database.is_current) == (True, 1, True)
    assert found.leader is None


def test_schemas__are_those_of_specifications(client: Client) -> None:
    assert client.schema("job")["properties"]["epochs"]["x-group"] == "training"
    assert "sampler" in client.schema("study")["properties"]
