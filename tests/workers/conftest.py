"""A Ray cluster with warm processes, shared by all tests that want the usual one; a process can have one at a time."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.live_service import LiveService, live_service


class Clusters:
    """The one Ray cluster that this process may have at a time."""

    def __init__(self, folders: pytest.TempPathFactory) -> None:
        self._folders = folders
        self._stack = ExitStack()
        self._usual: LiveService | None = None

    def usual(self) -> LiveService:
        """Return a dispatcher on a local cluster of two CPUs, the one that runs already if there is one."""
        if self._usual is None:
            self._usual = self._stack.enter_context(live_service(self._folders.mktemp("live")))
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
