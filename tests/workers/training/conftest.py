"""Fixtures of the training loop's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.workers.training.runs import RankPool

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RankPool]:
    with pytest.MonkeyPatch.context() as patch:
        # The ranks import this package by name, which pytest's import mode does not put on the path.
        patch.syspath_prepend(REPOSITORY)
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        pool = RankPool(2, tmp_path_factory.mktemp("stores"))
        yield pool
        pool.close()
