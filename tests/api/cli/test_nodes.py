"""`xsam node` and `xsam maintenance` against a real server."""

import pytest
from typer.testing import CliRunner

from tests.support import planning
from xsam.api.cli.main import app
from xsam.api.client import Client
from xsam.services.cluster.service import NodeSeen
from xsam.services.db.session import Database


@pytest.fixture(autouse=True)
def _cluster(database: Database) -> None:
    planning.report_nodes(database, NodeSeen("n1", "node-1", 4, 0), NodeSeen("n2", "node-2", 4, 0))


def _xsam(url: str, *words: str) -> str:
    done = CliRunner().invoke(app, [*words, "--url", url])
    assert done.exit_code == 0, done.output
    return done.output


def test_node__is_drained_and_taken_back(url: str, client: Client) -> None:
    said = _xsam(url, "node", "drain", "node-1", "--within", "60", "--reason", "new fans")
    assert "node-1 takes no new jobs; jobs that still run at" in said
    shown = _xsam(url, "cluster")
    assert "new fans" in shown.replace("\n", " ")
    first, second = client.cluster().nodes
    assert (first.cordon is not None, second.cordon) == (True, None)
    _xsam(url, "node", "uncordon", "node-1")
    assert [node.cordon for node in client.cluster().nodes] == [None, None]


def test_maintenance__is_seen_in_the_cluster_and_audited(url: str, client: Client) -> None:
    assert "running jobs finish" in _xsam(url, "maintenance", "on", "--reason", "new kernel")
    assert "nothing new starts" in _xsam(url, "cluster").replace("\n", " ")
    assert "save their state" in _xsam(url, "maintenance", "on", "--drain", "0")
    assert "Jobs start again" in _xsam(url, "maintenance", "off")
    assert client.cluster().maintenance is None
    actions = [event.action for event in client.admin.audit()]
    assert actions == ["node_uncordoned", "node_cordoned", "node_cordoned"]


def test_node__that_is_not_there_is_refused(url: str) -> None:
    done = CliRunner().invoke(app, ["node", "cordon", "node-9", "--url", url])
    assert done.exit_code == 1
    assert "no node node-9" in done.output
