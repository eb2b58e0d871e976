"""One service over rows and one Chromium for all journeys; whatever a page complains about fails its test.

Nothing trains: a `RowRunner` moves the rows as runners do.
"""

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, Response

from tests.support.browser import PATIENCE_MS, chromium
from tests.support.row_runner import RowRunner
from xsam.api.app import create_app
from xsam.api.server.server import Server, bind
from xsam.services.cluster import service as cluster
from xsam.services.cluster.service import NodeSeen
from xsam.services.db.session import Database
from xsam.services.settings import ApiSettings, Settings
from xsam.services.teams import service as teams

_EXPECTED = ("ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_EMPTY_RESPONSE")
"""What the browser itself writes about a service that a test has stopped."""


@dataclass
class Site:
    """A running service, and the hands of those who work behind it."""

    url: str
    database: Database
    settings: Settings
    runner: RowRunner
    http: httpx.Client

    def submit(self, name: str, **spec: Any) -> str:
        answer = self.http.post("/v1/jobs", json={"name": name, **spec})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])


@contextmanager
def serving(settings: Settings, database: Database, port: int = 0) -> Iterator[str]:
    """Serve one app in a thread."""
    is_ready = threading.Event()
    app = create_app(settings, database)
    server = Server(app, on_ready=is_ready.set)
    with bind("127.0.0.1", port) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        assert is_ready.wait(30)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            app.state.service.closing.set()
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


@contextmanager
def site_at(folder: Path, migrated: Path, api: ApiSettings, port: int = 0) -> Iterator[Site]:
    """Open a service over a database of its own."""
    settings = Settings(data_dir=folder, api=api)
    folder.mkdir(parents=True)
    shutil.copy(migrated, folder / "xsam.db")
    database = Database(settings.database_url)
    with database.unit_of_work() as session:
        teams.ensure_team(session, "default")
    alive(database)
    with serving(settings, database, port) as url, httpx.Client(base_url=url, timeout=30) as http:
        yield Site(url, database, settings, RowRunner(database, settings), http)
    database.dispose()


def alive(database: Database) -> None:
    """Let a dispatcher be seen, with two machines."""
    nodes = [NodeSeen(id=f"n{i}", host=f"node-{i}", num_cpus=8, num_gpus=2) for i in (1, 2)]
    with database.unit_of_work() as session:
        cluster.report_alive(session, "node-1:4711:1", nodes=nodes, num_warm_runners=0)


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory, migrated_file: Path) -> Iterator[Site]:
    """A service that asks for no token."""
    with site_at(tmp_path_factory.mktemp("site") / "data", migrated_file, ApiSettings()) as opened:
        yield opened


@pytest.fixture(scope="package")
def guarded_site(tmp_path_factory: pytest.TempPathFactory, migrated_file: Path) -> Iterator[Site]:
    """A service that asks for tokens."""
    with site_at(tmp_path_factory.mktemp("guarded") / "data", migrated_file, ApiSettings(auth="token")) as opened:
        yield opened


@pytest.fixture(scope="package")
def opened_chromium() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@dataclass
class Complaints:
    """What went wrong while a test looked: errors, refused content, requests to other hosts."""

    found: list[str] = field(default_factory=list)
    is_down: bool = False
    """Set while a test stops the service on purpose."""
    allowed: tuple[str, ...] = ()
    """Parts of messages that a test provokes."""

    def watch(self, context: BrowserContext, url: str) -> None:
        context.on("console", self._said)
        context.on("weberror", lambda error: self.found.append(f"error: {error.error}"))
        context.on("request", lambda request: self._asked(request, url))
        context.on("response", self._answered)

    def _said(self, message: ConsoleMessage) -> None:
        is_expected = self.is_down and any(part in message.text for part in _EXPECTED)
        if message.type in ("error", "warning") and not is_expected and not self._is_allowed(message.text):
            self.found.append(f"{message.type}: {message.text}")

    def _asked(self, request: Request, url: str) -> None:
        if not request.url.startswith((url, "data:", "blob:")):
            self.found.append(f"another host: {request.url}")

    def _answered(self, response: Response) -> None:
        if response.status >= 500 and not self.is_down:
            self.found.append(f"{response.status}: {response.url}")

    def _is_allowed(self, text: str) -> bool:
        return any(part in text for part in self.allowed)


@pytest.fixture
def complaints() -> Iterator[Complaints]:
    collected = Complaints()
    yield collected
    assert collected.found == []


NewContext = Callable[..., BrowserContext]


@pytest.fixture
def new_context(opened_chromium: Browser, complaints: Complaints) -> Iterator[NewContext]:
    """Open a browser's profile of its own: `new_context(url, **options)`."""
    with ExitStack() as stack:

        def opened(url: str, **options: Any) -> BrowserContext:
            context = opened_chromium.new_context(
                base_url=url, **{"viewport": {"width": 1280, "height": 800}, **options}
            )
            context.set_default_timeout(PATIENCE_MS)
            complaints.watch(context, url)
            stack.callback(context.close)
            return context

        yield opened


@pytest.fixture
def tab(site: Site, new_context: NewContext) -> Page:
    """A tab at the service without tokens."""
    alive(site.database)
    return new_context(site.url).new_page()


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])
