"""The two figures of the house that must be 0, and that the script would see them if they were not."""

from collections.abc import Iterator

import grimp
import pytest

from tests.architecture import figures


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return figures.import_graph()


@pytest.fixture
def bent(graph: grimp.ImportGraph) -> Iterator[grimp.ImportGraph]:
    """The graph with one import more, from the floor of the database to the jobs'."""
    arrow = {"importer": "xsam.services.db.base", "imported": "xsam.services.jobs.queue"}
    graph.add_import(**arrow)
    yield graph
    graph.remove_import(**arrow)


def test_import_circles__are_none(graph: grimp.ImportGraph) -> None:
    assert figures.circles(graph) == []


def test_upward_arrows__are_none(graph: grimp.ImportGraph) -> None:
    assert "xsam.services" in figures.floors()
    assert figures.upward(graph) == []


def test_figures__see_a_circle_and_an_upward_arrow(bent: grimp.ImportGraph) -> None:
    assert ("xsam.services.db.base", "xsam.services.jobs.queue") in figures.upward(bent)
    pair = {"xsam.services.db.base", "xsam.services.jobs.queue"}
    assert [circle for circle in figures.circles(bent) if pair <= set(circle)]


def test_sizes__count_every_room() -> None:
    sizes = figures.sizes()
    assert set(sizes) == set(figures.ROOMS)
    assert all(num_lines > num_files > 0 for num_files, num_lines in sizes.values())
