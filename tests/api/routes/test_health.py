import httpx
import pytest

from xsam.api.client import Client
from xsam.api.http.health import VERSION
from xsam.services.cluster.models import Dispatcher
from xsam.services.db import migrate
from xsam.services.db.clock import db_now
from xsam.services.db.session import Database


def test_health__needs_no_database(http: httpx.Client, database: Database) -> None:
    migrate.downgrade(database, "base")
    assert http.get("/healthz").json() == {"status": "alive", "version": VERSION}


@pytest.mark.usefixtures("small_cluster")
def test_ready__names_the_dispatchers(client: Client) -> None:
    assert client.readiness().dispatchers == ["node-1:4711"]


@pytest.mark.usefixtures("small_cluster")
def test_ready__not_with_another_schema(http: httpx.Client, database: Database) -> None:
    migrate.downgrade(database, "base")
    response = http.get("/readyz")
    assert (response.status_code, response.json()["code"]) == (503, "not_ready")
    assert "schema" in response.json()["detail"]


@pytest.mark.usefixtures("small_cluster")
def test_ready__not_with_a_dispatcher_that_fell_silent(http: httpx.Client, database: Database) -> None:
    with database.unit_of_work() as session:
        session.get_one(Dispatcher, "node-1:4711").seen_at = db_now(-11)
    assert http.get("/readyz").status_code == 503


def test_probes__take_no_parameters(http: httpx.Client) -> None:
    assert http.get("/healthz?verbose=1").json()["errors"][0]["field"] == "verbose"
