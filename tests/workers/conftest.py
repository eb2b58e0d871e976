"""A Ray cluster with warm processes for all tests of a module."""

from collections.abc import Iterator

import pytest

from tests.support.live_service import LiveService, live_service


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    """A dispatcher on a local Ray cluster, advanced by the test."""
    with live_service(tmp_path_factory.mktemp("live")) as started:
        yield started
