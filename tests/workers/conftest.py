"""A Ray cluster with warm processes, shared by all tests that want the usual one; a process can have one at a time."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.support.callers import SECRET_KEY
from tests.support.live_service import LiveService, live_service
from xsam.services.settings import SecretSettings

SECRET = "hunter2-not-for-ranks"
"""Part of the database's address, as a password would be."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let tests with a cluster of their own come last, so that the usual one is started once."""
    items.sort(key=lambda item: {"clusters", "nodes"} <= set(getattr(item, "fixturenames", ())))


class Clusters:
    """The one Ray cluster that this process may have at a time."""

    def __init__(self, folders: pytest.TempPathFactory) -> None:
        self._folders = folders
        self._stack = ExitStack()
        self._usual: LiveService | None = None
        self.ray_folder = Path()
        """Where the usual one's Ray keeps its files."""

    def usual(self) -> LiveService:
        """Return a dispatcher on a local cluster of two CPUs, the one that runs already if there is one.

        Its environment has the database's address and the key of secrets when it starts, as `xsam serve` and the
        compose file give them.
        """
        if self._usual is None:
            short = tempfile.TemporaryDirectory(prefix="xsam-ray-", dir="/tmp")  # Ray's sockets lie in it
            self.ray_folder = Path(self._stack.enter_context(short))
            url = f"sqlite:///{self._folders.mktemp(SECRET) / 'xsam.db'}"
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("RAY_TMPDIR", str(self.ray_folder))
                patch.setenv("XSAM_DATABASE__URL", url)
                patch.setenv("XSAM_SECRETS__KEY", SECRET_KEY)
                secrets = SecretSettings(key=SecretStr(SECRET_KEY))
                started = live_service(self._folders.mktemp("live"), database_url=url, secrets=secrets)
                self._usual = self._stack.enter_context(started)
        return self._usual

    def end(self) -> None:
        """End the usual one, so that another can be started."""
        self._usual = None
        self._stack.close()


@pytest.fixture(scope="session")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clusters]:
    """To be asked by every module that starts a cluster of its own: it ends the usual one first."""
    started = Clusters(tmp_path_factory)
    yield started
    started.end()


@pytest.fixture(scope="module")
def live(request: pytest.FixtureRequest, clusters: Clusters) -> Iterator[LiveService]:
    """The usual dispatcher, advanced by the test. After a failure the next module gets a new one."""
    failed_before = request.session.testsfailed
    yield clusters.usual()
    if request.session.testsfailed > failed_before:
        clusters.end()
