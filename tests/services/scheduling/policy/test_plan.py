from datetime import timedelta

import pytest

from tests.services.scheduling.policy.builders import NOW, decide, nodes, pending, placed, running
from xsam.services.scheduling.policy.types import Node, PendingJob
from xsam.services.teams.quota import TeamQuota
from xsam.services.usage.decay import TeamShare


def test_plan__empty_queue_is_an_empty_plan():
    made = decide([])
    assert (made.placements, made.preemptions, made.holders, dict(made.reasons)) == ((), (), (), {})


def test_plan__starts_a_job_that_fits():
    made = decide([pending("j", 2.0)])
    assert placed(made) == {"j": "n"}
    assert "j" not in made.reasons


def test_plan__higher_priority_goes_first():
    queue = [pending("old", 8.0, age_s=900), pending("urgent", 8.0, age_s=1, priority=1)]
    assert placed(decide(queue)) == {"urgent": "n"}


def test_plan__gang_starts_as_a_whole_or_not_at_all():
    queue = [pending("gang", 8.0, num_workers=3)]
    assert placed(decide(queue, nodes("mn"), [])) == {}
    assert placed(decide(queue, nodes("lmn"), [])) == {"gang": "lmn"}


def test_plan__one_idle_cluster_is_shared_between_teams_at_once():
    queue = [pending(f"{team}{i}", team=team, age_s=age) for team, age in (("a", 900), ("b", 9)) for i in range(8)]
    teams = [job_id[0] for job_id in placed(decide(queue))]
    assert teams.count("a") == teams.count("b") == 4


def test_plan__shares_follow_weights():
    queue = [pending(f"{team}{i}", team=team) for team in "ab" for i in range(8)]
    teams = [job_id[0] for job_id in placed(decide(queue, shares={"a": TeamShare(3.0)}))]
    assert (teams.count("a"), teams.count("b")) == (6, 2)


def test_plan__what_a_team_runs_already_counts_against_it():
    runs = [running(f"r{i}", "n", team="b", age_s=0) for i in range(4)]
    queue = [pending(f"{team}{i}", team=team) for team in "ab" for i in range(8)]
    assert {job_id[0] for job_id in placed(decide(queue, runs=runs))} == {"a"}


def test_plan__early_jobs_do_not_start_and_block_nobody():
    queue = [
        pending("early", 8.0, age_s=9, eligible_at=NOW + timedelta(seconds=1)),
        pending("j", 8.0, age_s=1, eligible_at=NOW),
    ]
    made = decide(queue)
    assert placed(made) == {"j": "n"}
    assert {job_id: reason.code for job_id, reason in made.reasons.items()} == {
        "early": "not_yet_eligible",
    }


def test_plan__infeasible_job_blocks_nobody():
    queue = [pending("never", 9.0, age_s=9), pending("j", 8.0, age_s=1)]
    made = decide(queue)
    assert placed(made) == {"j": "n"}
    assert made.reasons["never"].code.is_infeasible
    assert made.holders == ()


def test_plan__draining_node_takes_nothing():
    made = decide([pending("j")], [Node("n", 8, 64.0, is_schedulable=False)])
    assert placed(made) == {}
    assert made.reasons["j"].code == "no_nodes"


def test_plan__jobs_on_lost_nodes_still_count_for_quota():
    runs = [running("lost", "z", 4.0, team="a")]
    assert placed(decide([pending("j")], runs=runs, quotas={"a": TeamQuota(gpus=4)})) == {}


def test_plan__promise_ends_when_the_job_may_not_start_yet():
    runs = [running("r", "n", 8.0)]
    made = decide([pending("j", eligible_at=NOW + timedelta(seconds=1)), pending("k")], runs=runs, holders=("j",))
    assert made.holders == ("k",)


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_workers", 0), ("gpus_per_worker", 1.5), ("gpus_per_worker", -1.0), ("cpus_per_worker", -1.0)],
)
def test_pending_job__refuses_impossible_amounts(field, value):
    fields = {"num_workers": 1, "gpus_per_worker": 1.0, "cpus_per_worker": 1.0} | {field: value}
    with pytest.raises(ValueError, match=rf"{field} is {value!r}, allowed"):
        PendingJob(job_id="j", team="a", user="u", priority=0, submitted_at=NOW, **fields)


@pytest.mark.parametrize(
    "make",
    [
        lambda: TeamShare(0.0),
        lambda: TeamQuota(gpus=-1),
    ],
)
def test_configuration__refuses_numbers_without_meaning(make):
    with pytest.raises(ValueError, match="allowed"):
        make()
