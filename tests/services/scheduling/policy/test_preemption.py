import pytest

from tests.services.scheduling.policy.builders import decide, nodes, pending, placed, running, victims
from xsam.services.settings import SchedulingSettings
from xsam.services.teams.quota import TeamQuota


def test_preempt__makes_room_for_a_higher_priority():
    made = decide([pending("up", 8.0, priority=1)], runs=[running("r", "n", 8.0)])
    assert victims(made) == {"r": "up"}
    assert placed(made) == {}
    assert made.holders == ("up",)
    assert made.reasons["up"].code == "preempting"


@pytest.mark.parametrize("priority", [0, -1])
def test_preempt__never_the_same_or_a_higher_priority(priority):
    assert victims(decide([pending("j", 8.0, priority=priority)], runs=[running("r", "n", 8.0)])) == {}


def test_preempt__spares_jobs_below_the_minimum_run_time():
    config = SchedulingSettings(min_run_time_s=600)
    queue = [pending("up", 8.0, priority=1)]
    assert victims(decide(queue, runs=[running("r", "n", 8.0, age_s=599)], config=config)) == {}
    assert victims(decide(queue, runs=[running("r", "n", 8.0, age_s=600)], config=config)) == {"r": "up"}


def test_preempt__can_be_switched_off():
    config = SchedulingSettings(is_preemption_on=False)
    assert victims(decide([pending("up", 8.0, priority=1)], runs=[running("r", "n", 8.0)], config=config)) == {}


def test_preempt__nobody_if_the_job_would_not_fit_anyway():
    runs = [running("low", "n", 4.0), running("high", "n", 4.0, priority=5)]
    assert victims(decide([pending("up", 8.0, priority=1)], runs=runs)) == {}


def test_preempt__an_equal_priority_does_not_help_a_lower_one_to_make_room():
    runs = [running("low", "n", 4.0), running("equal", "n", 4.0, priority=1)]
    assert victims(decide([pending("up", 8.0, priority=1)], runs=runs)) == {}


def test_preempt__nobody_if_the_job_fits_without():
    made = decide([pending("up", 4.0, priority=1)], runs=[running("r", "n", 4.0)])
    assert placed(made) == {"up": "n"}
    assert victims(made) == {}


def test_preempt__least_important_first_then_the_one_that_started_last():
    runs = [
        running("mid", "n", 4.0, priority=1),
        running("low-old", "n", 2.0, age_s=9_000),
        running("low-new", "n", 2.0, age_s=800),
    ]
    assert victims(decide([pending("up", 2.0, priority=2)], runs=runs)) == {"low-new": "up"}


def test_preempt__one_large_victim_rather_than_many_small_ones():
    runs = [running(f"s{i}", "m") for i in range(8)] + [running("l", "n", 8.0)]
    assert victims(decide([pending("up", 8.0, priority=1)], nodes("mn"), runs)) == {"l": "up"}


def test_preempt__spares_a_victim_that_became_superfluous():
    # In order of cost the 1-GPU job comes first, but once the 8-GPU one goes it is not needed.
    runs = [running("small", "n", 1.0, age_s=700), running("large", "n", 7.0, age_s=9_000)]
    assert victims(decide([pending("up", 7.0, priority=1)], runs=runs)) == {"large": "up"}


def test_preempt__uses_what_is_free_already():
    runs = [running("r", "n", 2.0), running("s", "n", 2.0), running("t", "n", 2.0)]
    assert len(victims(decide([pending("up", 4.0, priority=1)], runs=runs))) == 1


def test_preempt__frees_several_nodes_for_a_gang():
    runs = [running("r", "l", 8.0), running("s", "m", 8.0), running("t", "n", 8.0, priority=9)]
    made = decide([pending("up", 8.0, num_workers=2, priority=1)], nodes("lmn"), runs)
    assert victims(made) == {"r": "up", "s": "up"}


def test_preempt__gang_victim_counts_on_all_its_nodes():
    runs = [running("gang", "mn", 8.0)]
    made = decide([pending("up", 8.0, num_workers=2, priority=1)], nodes("mn"), runs)
    assert victims(made) == {"gang": "up"}


def test_preempt__does_not_ask_twice_while_the_victim_stops():
    runs = [running("r", "m", 8.0, is_stopping=True), running("s", "n", 8.0)]
    made = decide([pending("up", 8.0, priority=1)], nodes("mn"), runs, holders=("up",))
    assert victims(made) == {}
    assert made.reasons["up"].code == "preempting"
    assert made.reasons["up"].blocking_job_ids == ("r",)


def test_preempt__room_that_is_being_made_is_not_given_to_others():
    runs = [running("r", "n", 6.0, is_stopping=True)]
    queue = [pending("up", 8.0, priority=1), pending("small", 1.0), pending("cpu", 0.0)]
    assert placed(decide(queue, runs=runs, holders=("up",))) == {"cpu": "n"}


def test_preempt__two_jobs_share_one_victim_that_is_large_enough_for_both():
    queue = [pending("u0", 4.0, priority=1, age_s=2), pending("u1", 4.0, priority=1, age_s=1)]
    made = decide(queue, runs=[running("r", "n", 8.0)])
    assert victims(made) == {"r": "u0"}
    assert made.holders == ("u0", "u1")


def test_preempt__own_teams_lower_priority_frees_its_quota():
    runs = [running("own", "n", 2.0, team="a"), running("other", "n", 2.0, team="b")]
    made = decide([pending("up", 2.0, priority=1)], runs=runs, quotas={"a": TeamQuota(gpus=2)})
    assert victims(made) == {"own": "up"}


def test_preempt__other_teams_jobs_do_not_help_against_a_quota():
    runs = [running("own", "n", 2.0, team="a", priority=1), running("other", "n", 2.0, team="b")]
    made = decide([pending("up", 2.0, priority=1)], runs=runs, quotas={"a": TeamQuota(gpus=2)})
    assert victims(made) == {}
    assert made.reasons["up"].code == "team_quota"


def test_preempt__is_bounded_per_plan():
    runs = [running(f"r{i}", "n") for i in range(8)]
    queue = [pending(f"u{i}", priority=1) for i in range(8)]
    assert len(victims(decide(queue, runs=runs, config=SchedulingSettings(max_preempting_jobs_per_plan=3)))) == 3


def test_preempt__a_fraction_frees_a_whole_gpu_only_if_its_neighbour_leaves_too():
    # Two halves share one GPU of a one-GPU node.
    runs = [running("h0", "n", 0.5), running("h1", "n", 0.5)]
    made = decide([pending("up", 1.0, priority=1)], nodes("n", gpus=1), runs)
    assert victims(made) == {"h0": "up", "h1": "up"}
