"""Each reason: its code, its fields and its sentence."""

from datetime import timedelta

import pytest

from tests.services.scheduling.policy.builders import NOW, decide, nodes, pending, running
from xsam.services.scheduling.policy.reasons import ReasonCode
from xsam.services.scheduling.policy.types import Node
from xsam.services.settings import SchedulingSettings
from xsam.services.teams.quota import TeamQuota
from xsam.services.usage.decay import DecayedUsage, TeamShare


def reason_of(job_id, made):
    reason = made.reasons[job_id]
    return reason, reason.sentence()


def test_not_yet_eligible():
    job = pending("j", eligible_at=NOW + timedelta(minutes=5), attempt=3)
    reason, sentence = reason_of("j", decide([job]))
    assert reason.eligible_at == NOW + timedelta(minutes=5)
    assert sentence == "Attempt 3 may not start before 2026-03-02 12:05 UTC."


def test_no_nodes():
    reason, sentence = reason_of("j", decide([pending("j")], []))
    assert (reason.code, reason.position) == (ReasonCode.NO_NODES, 1)
    assert sentence == (
        "No node that takes jobs is known: the cluster is away, or all its nodes are set apart. Position 1 of 1."
    )


def test_infeasible_cluster__also_for_a_worker_larger_than_any_node():
    reason, sentence = reason_of("j", decide([pending("j", 9.0, cpus_per_worker=4.0)], nodes("mn")))
    assert (reason.code, reason.position) == (ReasonCode.INFEASIBLE_CLUSTER, None)
    assert reason.shortage.workers_that_fit == 0
    assert sentence == (
        "Can never start: 9 GPUs and 4 CPUs does not fit even on the empty cluster (16 GPUs, 128 CPUs). "
        "Ask for less per worker, or add nodes."
    )


def test_infeasible_quota():
    reason, sentence = reason_of("j", decide([pending("j", 4.0)], quotas={"a": TeamQuota(gpus=2, running_jobs=1)}))
    assert (reason.code, reason.shortage.gpus) == (ReasonCode.INFEASIBLE_QUOTA, 2.0)
    assert sentence == (
        "Can never start: 4 GPUs and 1 CPU is more than the whole quota of team a (2 GPUs, 1 running job). "
        "Ask for less, or have the quota raised."
    )


def test_team_quota():
    runs = [running("r", "n", 3.0, team="a"), running("s", "n", 1.0, team="b")]
    reason, sentence = reason_of("j", decide([pending("j", 2.0)], runs=runs, quotas={"a": TeamQuota(gpus=4)}))
    assert reason.code is ReasonCode.TEAM_QUOTA
    assert (reason.shortage.gpus, reason.shortage.free_gpus, reason.shortage.free_cpus) == (1.0, 1.0, None)
    assert reason.blocking_job_ids == ("r",)
    assert sentence == (
        "Team a has reached its quota (4 GPUs): it holds 3 GPUs and 1 CPU in 1 job, and 1 GPU is missing. "
        "Position 1 of 1."
    )


def test_team_quota__of_running_jobs():
    runs = [running("r", "n", 0.0, team="a")]
    _, sentence = reason_of("j", decide([pending("j", 0.0)], runs=runs, quotas={"a": TeamQuota(running_jobs=1)}))
    assert "Team a has reached its quota (1 running job)" in sentence
    assert "1 job slot is missing" in sentence


def test_quota_reserved():
    runs = [running("r", "n", 2.0, team="a")]
    queue = [pending("large", 4.0, age_s=9), pending("small", 1.0, age_s=1)]
    reason, sentence = reason_of("small", decide(queue, runs=runs, quotas={"a": TeamQuota(gpus=4)}))
    assert (reason.code, reason.blocking_job_ids) == (ReasonCode.QUOTA_RESERVED, ("large",))
    assert sentence == (
        "The rest of team a's quota is kept for job large, which is ahead in the team's line and waits for quota too. "
        "Position 2 of 2."
    )


def test_insufficient_resources():
    end = NOW + timedelta(hours=2)
    runs = [running("r", "n", 5.0, expected_end_at=end), running("s", "n", 1.0, team="c")]
    reason, sentence = reason_of("j", decide([pending("j", 4.0)], runs=runs))
    assert reason.code is ReasonCode.INSUFFICIENT_RESOURCES
    assert (reason.shortage.gpus, reason.shortage.cpus, reason.shortage.free_gpus) == (2.0, 0.0, 2.0)
    assert [(held.team, held.gpus) for held in reason.holdings] == [("b", 5.0), ("c", 1.0)]
    assert reason.blocking_job_ids == ("r", "s")
    assert (reason.estimated_start_at, reason.is_lower_bound) == (end, False)
    assert sentence == (
        "Waiting for 4 GPUs and 1 CPU: 2 of 8 GPUs and 62 of 64 CPUs are free, 2 GPUs are missing. "
        "Held by team b 5 GPUs and 1 CPU, team c 1 GPU and 1 CPU. "
        "Position 1 of 1. Expected to start at 2026-03-02 14:00 UTC."
    )


def test_insufficient_resources__behind_a_reservation_has_a_lower_bound():
    runs = [running("r", "n", 8.0, expected_end_at=NOW + timedelta(hours=2))]
    queue = [pending("first", 8.0, age_s=9), pending("second", 8.0, age_s=1)]
    reason, sentence = reason_of("second", decide(queue, runs=runs))
    assert reason.is_lower_bound
    assert sentence.endswith("Position 2 of 2. Not before 2026-03-02 14:00 UTC.")


def test_insufficient_resources__without_known_ends_has_no_estimate():
    reason, _ = reason_of("j", decide([pending("j", 8.0)], runs=[running("r", "n", 8.0)]))
    assert reason.estimated_start_at is None


def test_insufficient_resources__names_missing_cpus():
    _, sentence = reason_of(
        "j", decide([pending("j", 0.0, cpus_per_worker=4.0)], [Node("n", 0, 4.0)], [running("r", "n", 0.0)])
    )
    assert "Waiting for 4 CPUs: 0 of 0 GPUs and 3 of 4 CPUs are free, 1 CPU is missing." in sentence


def test_fragmented():
    runs = [running("r", "m", 6.0), running("s", "n", 6.0)]
    reason, sentence = reason_of("j", decide([pending("j", 4.0)], nodes("mn"), runs))
    assert (reason.code, reason.shortage.gpus) == (ReasonCode.FRAGMENTED, 0.0)
    assert "but spread over nodes so that only 0 of 1 worker would find room." in sentence


def test_fragmented__counts_the_workers_of_a_gang():
    runs = [running("r", "m", 5.0), running("s", "n", 5.0)]
    reason, sentence = reason_of("j", decide([pending("j", 2.0, num_workers=3)], nodes("mn"), runs))
    assert reason.shortage.workers_that_fit == 2
    assert "Waiting for 3 workers with 2 GPUs and 1 CPU each" in sentence
    assert "only 2 of 3 workers would find room" in sentence


def test_reserved():
    queue = [pending("large", 8.0, age_s=9), pending("small", 1.0, age_s=1)]
    reason, sentence = reason_of("small", decide(queue, runs=[running("r", "n", 4.0)]))
    assert (reason.code, reason.blocking_job_ids) == (ReasonCode.RESERVED, ("large",))
    assert sentence.startswith("There is room for 1 GPU and 1 CPU, but it is kept for job large, which is ahead;")


def test_preempting():
    runs = [running("r", "n", 4.0), running("s", "n", 4.0)]
    config = SchedulingSettings(stop_grace_s=60.0)
    reason, sentence = reason_of("j", decide([pending("j", 8.0, priority=1)], runs=runs, config=config))
    assert (reason.code, reason.blocking_job_ids) == (ReasonCode.PREEMPTING, ("r", "s"))
    assert sentence == (
        "Starts as soon as jobs r, s stopped and made room. Position 1 of 1. Expected to start at 2026-03-02 12:01 UTC."
    )


def test_position__interleaves_teams_and_leaves_out_who_is_not_in_line():
    queue = [
        *(pending(f"{team}{i}", 8.0, team=team, age_s=90 - i) for team in "ab" for i in range(3)),
        pending("early", 8.0, age_s=999, eligible_at=NOW + timedelta(seconds=1)),
        pending("never", 80.0, age_s=999),
    ]
    made = decide(queue, runs=[running("r", "n", 8.0, team="c")])
    positions = {job_id: reason.position for job_id, reason in made.reasons.items()}
    assert positions == {"a0": 1, "b0": 2, "a1": 3, "b1": 4, "a2": 5, "b2": 6, "early": None, "never": None}
    assert made.reasons["a0"].num_in_line == 6


def test_standing__shows_the_teams_part():
    shares = {
        "a": TeamShare(3.0, DecayedUsage(100.0, NOW), {"ada": DecayedUsage(40.0, NOW)}),
        "b": TeamShare(1.0, DecayedUsage(300.0, NOW)),
    }
    runs = [running("r", "n", 8.0, age_s=0.0), running("s", "n", 0.0, team="a", age_s=0.0)]
    standing = decide([pending("j", 8.0)], runs=runs, shares=shares).reasons["j"].standing
    assert standing.usage_fraction == pytest.approx(0.25)
    assert standing.entitled_fraction == pytest.approx(0.75)
    assert (standing.holding.gpus, standing.holding.cpus, standing.holding.running_jobs) == (0.0, 1.0, 1)


def test_blocking_jobs__are_at_most_five_largest_first():
    runs = [running(f"r{i}", "n", 1.0) for i in range(6)] + [running("big", "n", 2.0)]
    blocking = decide([pending("j", 8.0)], runs=runs).reasons["j"].blocking_job_ids
    assert blocking == ("big", "r0", "r1", "r2", "r3")


def test_reasons__free_counts_what_this_plan_starts():
    queue = [pending("first", 6.0, age_s=9), pending("second", 4.0, age_s=1)]
    reason = decide(queue).reasons["second"]
    assert reason.shortage.free_gpus == 2.0
    assert [(held.team, held.gpus) for held in reason.holdings] == [("a", 6.0)]


def test_reasons__unknown_job_is_a_key_error():
    with pytest.raises(KeyError):
        decide([pending("j")]).reasons["other"]


def test_nodes_that_miss_something__are_planned_around_and_named():
    """What others hold, or what is set aside, is no room now, but counts for what could ever fit."""
    lost = Node("n", 4, 16.0, lost_gpus=4, lost_cpus=2.0, remark="On n 4 GPUs are held in Ray by others.")
    made = decide([pending("gpu", 4.0), pending("cpu", 0.0, cpus_per_worker=14.0)], [lost])
    assert [placed.job_id for placed in made.placements] == ["cpu"]
    reason, sentence = reason_of("gpu", made)
    assert reason.code is ReasonCode.INSUFFICIENT_RESOURCES
    assert (reason.shortage.free_gpus, reason.shortage.total_gpus) == (0.0, 4)
    assert "are missing. " in sentence
    assert "On n 4 GPUs are held in Ray by others." in sentence


def test_many_nodes_that_miss_something__are_named_in_part():
    lost = [Node(f"n{number}", 4, 16.0, lost_gpus=4, remark=f"n{number} is set aside.") for number in range(5)]
    _, sentence = reason_of("j", decide([pending("j", 4.0)], lost))
    assert "n2 is set aside. 2 more nodes miss something." in sentence
