"""A real server on loopback for each test: uvicorn in a thread, a migrated SQLite file, no dispatcher."""

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from tests.api.token_service import Callers, make_callers
from tests.support.row_runner import RowRunner
from xsam.api.app import create_app
from xsam.api.client import Client
from xsam.api.server.server import Server, bind, url_of
from xsam.services.cluster import service as cluster
from xsam.services.cluster.service import NodeSeen
from xsam.services.cluster.traits import NodeTraits
from xsam.services.db import migrate
from xsam.services.db.session import Database
from xsam.services.settings import Settings, TrainingSettings


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / "xsam.db"
    database = Database(f"sqlite:///{path}")
    migrate.upgrade(database)
    database.dispose()  # the last connection moves the write-ahead log into the file
    return path


@pytest.fixture(autouse=True)
def _own_settings_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))  # what `xsam login` remembers
    for name in [name for name in os.environ if name.startswith("XSAM_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", training=TrainingSettings(allowed_packages=("team_code",)))


@pytest.fixture
def database(settings: Settings, migrated_file: Path) -> Iterator[Database]:
    settings.data_dir.mkdir()
    shutil.copy(migrated_file, settings.data_dir / "xsam.db")
    database = Database(settings.database_url)
    yield database
    database.dispose()


@pytest.fixture
def app(settings: Settings, database: Database) -> FastAPI:
    return create_app(settings, database)


@pytest.fixture
def url(app: FastAPI) -> Iterator[str]:
    is_ready = threading.Event()
    server = Server(app, on_ready=is_ready.set)
    with bind("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        assert is_ready.wait(60)
        yield url_of(listener)
        app.state.service.closing.set()
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=60) as http:
        yield http


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, timeout_s=60) as client:
        yield client


@pytest.fixture
def runner(database: Database, settings: Settings) -> RowRunner:
    return RowRunner(database, settings)


@pytest.fixture
def small_cluster(database: Database) -> None:
    """One node with 4 CPUs and 1 GPU, seen by a dispatcher just now."""
    with database.unit_of_work() as session:
        node = NodeSeen("n1", "node-1", num_cpus=4, num_gpus=1, traits=NodeTraits("H100", 80.0, (("zone", "a"),)))
        cluster.report_alive(session, "node-1:4711", nodes=[node], num_warm_runners=0)


@pytest.fixture
def callers(database: Database) -> Callers:
    """Have one user of each role, with tokens."""
    return make_callers(database)
