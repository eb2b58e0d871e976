from datetime import timedelta

import pytest

from tests.services.scheduling.policy.builders import NOW, decide, nodes, pending, placed, running
from xsam.services.scheduling.policy.backfill import (
    End,
    earliest_start,
    known_end,
    make_reservation,
    sort_ends,
    time_bound_s,
)
from xsam.services.scheduling.policy.capacity import Cluster, Shape, to_units
from xsam.services.settings import SchedulingSettings


def later(seconds):
    return NOW + timedelta(seconds=seconds)


def test_known_end__is_the_estimate_or_the_limit_whichever_is_first():
    assert known_end(running("r", "n"), NOW) is None
    assert known_end(running("r", "n", expected_end_at=later(50)), NOW) == later(50)
    assert known_end(running("r", "n", age_s=100, max_run_time_s=130, expected_end_at=later(50)), NOW) == later(30)


def test_known_end__passed_estimate_says_nothing_and_passed_limit_is_now():
    assert known_end(running("r", "n", expected_end_at=later(-1)), NOW) is None
    assert known_end(running("r", "n", age_s=100, max_run_time_s=90), NOW) == NOW


def test_time_bound__prefers_the_limit_and_stretches_the_estimate():
    config = SchedulingSettings(estimate_slack=2.0)
    assert time_bound_s(pending("j"), config) is None
    assert time_bound_s(pending("j", expected_run_time_s=10), config) == 20
    assert time_bound_s(pending("j", expected_run_time_s=10, max_run_time_s=15), config) == 15


def test_earliest_start__is_the_end_that_makes_room():
    cluster = Cluster(nodes("n"), [running("r", "n", 4.0), running("s", "n", 2.0)])
    ends = sort_ends([End(later(60), "s"), End(later(90), "r")])
    four = Shape(1, to_units(4), 0)
    eight = Shape(1, to_units(8), 0)
    assert earliest_start(cluster, cluster.book_without(()), four, ends, ())[0] == later(60)
    assert earliest_start(cluster, cluster.book_without(()), eight, ends, ())[0] == later(90)
    assert earliest_start(cluster, cluster.book_without(()), eight, ends[:1], ())[0] is None


def test_reservation__without_known_ends_takes_the_node_with_the_least_to_release():
    cluster = Cluster(nodes("lmn"), [running("r", "l", 6.0), running("s", "m", 3.0), running("t", "n", 8.0)])
    made = make_reservation(cluster, cluster.book_without(()), Shape(1, to_units(8), 0), (), ())
    assert made is not None
    assert list(made.extra) == [1]
    assert made.starts_at is None


def test_reservation__is_refused_if_too_few_nodes_are_open():
    cluster = Cluster(nodes("mn"), [running("r", "mn", 8.0)])
    shape = Shape(2, to_units(8), 0)
    assert make_reservation(cluster, cluster.book_without(()), shape, (), (), closed={0}) is None


FULL = [running("r", "m", 8.0, expected_end_at=later(1_000)), running("s", "n", 4.0)]


def test_backfill__short_job_uses_reserved_nodes_before_the_start():
    queue = [
        pending("large", 8.0, age_s=9, num_workers=2),
        pending("short", 4.0, age_s=1, max_run_time_s=500),
    ]
    runs = [FULL[0], running("s", "n", 4.0, expected_end_at=later(1_000))]
    made = decide(queue, nodes("mn"), runs)
    assert placed(made) == {"short": "n"}
    assert made.reasons["large"].estimated_start_at == later(1_000)


@pytest.mark.parametrize(
    "fields", [{}, {"max_run_time_s": 1_001.0}, {"expected_run_time_s": 700.0}], ids=["unknown", "long", "with slack"]
)
def test_backfill__job_that_might_delay_the_reservation_waits(fields):
    queue = [pending("large", 8.0, age_s=9, num_workers=2), pending("later", 4.0, age_s=1, **fields)]
    runs = [FULL[0], running("s", "n", 4.0, expected_end_at=later(1_000))]
    made = decide(queue, nodes("mn"), runs)
    assert placed(made) == {}
    assert made.reasons["later"].code == "reserved"
    assert made.reasons["later"].blocking_job_ids == ("large",)


def test_backfill__unknown_job_may_use_what_the_reservation_leaves_over():
    # At the start, node m has 8 free GPUs for a job of 6: two are left over, one is free on n.
    runs = [running("r", "m", 6.0, expected_end_at=later(100)), running("s", "n", 8.0)]
    queue = [pending("large", 6.0, age_s=9), pending("two", 2.0, age_s=2), pending("one", 1.0, age_s=1)]
    made = decide(queue, nodes("mn"), runs)
    assert placed(made) == {"two": "m"}


def test_backfill__other_nodes_are_free_for_all():
    runs = [running("r", "m", 8.0, expected_end_at=later(100)), running("s", "n", 4.0)]
    queue = [pending("large", 8.0, age_s=9), pending("small", 4.0, age_s=1)]
    assert placed(decide(queue, nodes("mn"), runs)) == {"small": "n"}


def test_backfill__nothing_enters_a_drained_node_whose_jobs_have_no_known_end():
    runs = [running("s", "n", 4.0)]
    queue = [pending("large", 8.0, age_s=9), pending("short", 1.0, age_s=1, max_run_time_s=60)]
    assert placed(decide(queue, nodes("n"), runs)) == {}


def test_backfill__can_be_switched_off():
    runs = [running("r", "m", 8.0), running("s", "n", 4.0)]
    queue = [pending("large", 8.0, age_s=9), pending("small", 4.0, age_s=1)]
    assert placed(decide(queue, nodes("mn"), runs, config=SchedulingSettings(is_backfill_on=False))) == {}


def test_reservation__stays_with_its_job_against_teams_that_used_less():
    runs = [running("s", "n", 4.0, team="a")]
    queue = [pending("large", 8.0, age_s=9), pending("light", 1.0, age_s=1, team="c")]
    assert placed(decide(queue, nodes("n"), runs)) == {"light": "n"}
    assert placed(decide(queue, nodes("n"), runs, holders=("large",))) == {}


def test_reservation__yields_to_a_higher_priority_until_patience_ends():
    runs = [running("s", "n", 4.0)]
    config = SchedulingSettings(patience_s=3_600, is_preemption_on=False)
    urgent = pending("urgent", 1.0, priority=9)
    fresh = [pending("large", 8.0, age_s=3_599), urgent]
    tired = [pending("large", 8.0, age_s=3_600), urgent]
    assert placed(decide(fresh, nodes("n"), runs, config=config, holders=("large",))) == {"urgent": "n"}
    assert placed(decide(tired, nodes("n"), runs, config=config, holders=("large",))) == {}


def test_reservation__out_of_patience_drains_even_if_ends_are_known():
    runs = [running("s", "n", 4.0, expected_end_at=later(5_000))]
    short = pending("short", 1.0, age_s=1, max_run_time_s=60)
    assert placed(decide([pending("large", 8.0, age_s=9), short], nodes("n"), runs)) == {"short": "n"}
    config = SchedulingSettings(patience_s=5)
    assert placed(decide([pending("large", 8.0, age_s=9), short], nodes("n"), runs, config=config)) == {}


def test_reservation__several_jobs_reserve_different_nodes():
    runs = [running("r", "m", 6.0), running("s", "n", 6.0)]
    queue = [pending("l0", 8.0, age_s=9), pending("l1", 8.0, age_s=8), pending("small", 1.0, age_s=1)]
    assert placed(decide(queue, nodes("mn"), runs, config=SchedulingSettings(max_reservations=1))) == {"small": "n"}
    both = decide(queue, nodes("mn"), runs, config=SchedulingSettings(max_reservations=2))
    assert placed(both) == {}
    assert both.holders == ("l0", "l1")


def test_reservation__short_job_enters_only_the_nodes_whose_start_is_known():
    runs = [running("r", "m", 6.0, expected_end_at=later(1_000)), running("s", "n", 6.0)]
    queue = [
        pending("l0", 8.0, age_s=9),
        pending("l1", 8.0, age_s=8),
        *(pending(f"short{i}", 1.0, age_s=3 - i, max_run_time_s=60) for i in range(3)),
    ]
    made = decide(queue, nodes("mn"), runs, config=SchedulingSettings(max_reservations=2))
    assert placed(made) == {"short0": "m", "short1": "m"}


def test_reservation__counts_the_limits_of_jobs_that_start_in_the_same_plan():
    queue = [pending("now", 4.0, age_s=9, max_run_time_s=300), pending("large", 8.0, age_s=8)]
    made = decide(queue, nodes("n"))
    assert placed(made) == {"now": "n"}
    assert made.reasons["large"].estimated_start_at == later(300)


def test_reservation__jobs_out_of_patience_keep_the_order_of_their_promises():
    queue = [pending("older", 8.0, age_s=99), pending("promised", 8.0, age_s=50)]
    config = SchedulingSettings(patience_s=10)
    assert placed(decide(queue, nodes("n"), config=config, holders=("promised", "older"))) == {"promised": "n"}
