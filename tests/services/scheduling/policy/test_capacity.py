import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.services.scheduling.policy.builders import nodes, running
from xsam.services.scheduling.policy.capacity import UNITS, Book, Cluster, Free, Shape, overlap, to_units
from xsam.services.scheduling.policy.types import Node


def shape(workers=1, gpus=1.0, cpus=1.0):
    return Shape(workers, to_units(gpus), to_units(cpus))


def book(*free, has_gpus=None):
    return Book([Free(gpus, cpus * UNITS) for gpus, cpus in free], has_gpus or [True] * len(free))


def test_find__takes_the_fullest_node_that_fits():
    assert book((8, 64), (3, 64), (2, 64), (1, 64)).find(shape(gpus=2)) == (2,)


def test_find__among_equal_gpus_takes_the_fewest_cpus_that_are_enough():
    assert book((2, 64), (2, 3), (2, 8)).find(shape(gpus=2, cpus=4)) == (2,)


def test_find__puts_a_gang_on_one_node_if_it_can():
    assert book((4, 64), (8, 64), (4, 64)).find(shape(workers=8)) == (1,) * 8


def test_find__uses_as_few_nodes_as_possible_and_ends_on_the_tightest():
    found = book((2, 64), (5, 64), (8, 64), (3, 64)).find(shape(workers=10))
    assert found == (2,) * 8 + (0,) * 2


def test_find__all_or_nothing():
    assert book((2, 64), (2, 64)).find(shape(workers=5)) is None
    assert book((2, 64), (2, 64)).find(shape(workers=2, gpus=3)) is None


def test_find__a_worker_never_spans_nodes():
    assert book((4, 64), (4, 64)).find(shape(gpus=8)) is None


def test_find__job_without_gpu_avoids_gpu_nodes():
    assert book((8, 64), (0, 4), has_gpus=[True, False]).find(shape(gpus=0, cpus=2)) == (1,)


def test_find__job_without_gpu_falls_back_to_the_node_whose_gpus_are_taken():
    assert book((8, 64), (1, 64), (0, 1), has_gpus=[True, True, False]).find(shape(gpus=0, cpus=2)) == (1,)


def test_find__gang_without_gpu_fills_the_cpu_nodes_first():
    found = book((8, 64), (0, 4), (0, 4), has_gpus=[True, False, False]).find(shape(workers=4, gpus=0, cpus=2))
    assert found is not None
    assert set(found) == {1, 2}


def test_find__fraction_shares_a_gpu_before_it_opens_one():
    cluster = Cluster(nodes("ab"), [running("r", "b", 0.25)])
    assert cluster.book_without(()).find(shape(gpus=0.5)) == (1,)


def test_find__fraction_takes_the_tightest_shared_gpu():
    cluster = Cluster(nodes("ab"), [running("r", "a", 0.25), running("s", "b", 0.5)])
    assert cluster.book_without(()).find(shape(gpus=0.5)) == (1,)


def test_fractions__do_not_add_up_across_gpus():
    cluster = Cluster([Node("a", 2, 64)], [running("r", "a", 0.6), running("s", "a", 0.6)])
    free = cluster.book_without(()).free[0]
    assert free.gpus == 0
    assert free.shared == (4_000, 4_000)
    assert free.num_workers(shape(gpus=0.8)) == 0
    assert free.num_workers(shape(workers=2, gpus=0.4)) == 2


def test_fractions__a_tenth_ten_times_is_exactly_one_gpu():
    free = Free(1, UNITS)
    assert free.num_workers(shape(workers=20, gpus=0.1, cpus=0)) == 10
    assert free.without(to_units(0.1), 0, 10) == Free(0, UNITS)


def test_cluster__leaves_out_draining_nodes_but_counts_them_as_feasible():
    cluster = Cluster([Node("a", 8, 64, is_schedulable=False), Node("b", 2, 64)], [])
    assert cluster.book_without(()).find(shape(gpus=8)) is None
    assert cluster.is_feasible(shape(gpus=8))
    assert not cluster.is_feasible(shape(gpus=9))


def test_cluster__ignores_workers_on_lost_nodes_and_survives_a_node_that_shrank():
    cluster = Cluster([Node("a", 1, 2)], [running("lost", "z"), running("big", "aaaa")])
    assert cluster.book_without(()).free == [Free(0, 0)]


def test_overlap__forgets_shared_gpus():
    assert overlap(Free(4, 10, (5_000,)), Free(2, 20, (2_000,))) == Free(2, 10)


def test_shape__of_one_worker_without_anything_fits_anywhere():
    assert book((0, 0)).find(shape(gpus=0, cpus=0)) == (0,)


amounts = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.7, 1.0, 2.0, 4.0])
shapes = st.builds(shape, st.integers(1, 6), amounts, st.sampled_from([0.0, 1.0, 3.0]))


@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 16)), min_size=1, max_size=6), st.lists(shapes, max_size=12)
)
def test_book__find_agrees_with_counting_and_take_never_oversubscribes(capacities, asked):
    has_gpus = [gpus > 0 for gpus, _ in capacities]
    start = [Free(gpus, cpus * UNITS) for gpus, cpus in capacities]
    made = Book(start, has_gpus)
    taken = [(0, 0)] * len(start)
    for each in asked:
        found = made.find(each)
        assert (found is not None) == (made.num_workers(each) >= each.num_workers)
        if found is None:
            continue
        assert len(found) == each.num_workers
        for index in sorted(set(found)):
            count = found.count(index)
            made.take(index, each, count)
            taken[index] = (taken[index][0] + count * each.gpus, taken[index][1] + count * each.cpus)
    for index, (gpus, cpus) in enumerate(capacities):
        assert taken[index][0] == gpus * UNITS - made.free[index].gpu_units
        assert taken[index][1] == cpus * UNITS - made.free[index].cpus
        assert made.free[index].cpus >= 0
    fresh = Book(made.free, has_gpus)
    assert all(fresh.find(each) == made.find(each) for each in asked)


def test_copy__is_independent():
    first = book((8, 64))
    second = first.copy()
    second.take(0, shape(gpus=8), 1)
    assert first.find(shape(gpus=8)) == (0,)
    assert second.find(shape(gpus=1)) is None


@pytest.mark.parametrize(("gpus", "expected"), [(0.5, True), (1.0, False), (0.0, False)])
def test_shape__knows_fractions(gpus, expected):
    assert shape(gpus=gpus).is_fraction is expected
