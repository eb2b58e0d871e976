import math

from tests.services.scheduling.policy.builders import decide, nodes, pending, placed, running, victims
from xsam.services.cluster.traits import NodeNeeds, NodeTraits
from xsam.services.scheduling.policy.quotas import Amount, QuotaBook
from xsam.services.scheduling.policy.reasons import ReasonCode
from xsam.services.scheduling.policy.types import Node, PendingJob
from xsam.services.teams.quota import TeamQuota

UNIT = 10_000


def test_amount__what_is_not_asked_for_cannot_stop_a_job():
    assert Amount(-UNIT, UNIT, 1).covers(Amount(0, UNIT, 1))
    assert not Amount(-UNIT, UNIT, 1).covers(Amount(1, 0, 1))


def test_book__team_without_quota_has_no_limit():
    assert QuotaBook({}, [running("r", "n")], (), {}).left("b") == Amount(math.inf, math.inf, math.inf)


def test_book__leaving_jobs_count_now_and_not_later():
    book = QuotaBook({"b": TeamQuota(gpus=4)}, [running("r", "n", 3.0)], {"r"}, {})
    assert book.left("b").gpus == 1 * UNIT
    assert book.left_later("b").gpus == 4 * UNIT


def test_book__lowered_quota_stays_exceeded_until_enough_has_left():
    book = QuotaBook({"b": TeamQuota(gpus=2)}, [running("r", "n", 4.0), running("s", "n", 1.0)], {"s"}, {})
    assert not book.left_later("b").covers(Amount(UNIT, 0, 1))


def test_book__room_kept_for_later_is_not_given_out_now():
    book = QuotaBook({"b": TeamQuota(gpus=4)}, [running("r", "n", 2.0)], {"r"}, {})
    book.keep_later("b", Amount(3 * UNIT, 0, 1), {})
    assert book.left("b").gpus == 1 * UNIT


def test_plan__gpu_quota_limits_a_team():
    made = decide([pending(f"j{i}", age_s=9 - i) for i in range(5)], quotas={"a": TeamQuota(gpus=3)})
    assert sorted(placed(made)) == ["j0", "j1", "j2"]


def test_plan__running_jobs_use_the_quota():
    runs = [running("r", "n", 3.0, team="a")]
    assert placed(decide([pending("j")], runs=runs, quotas={"a": TeamQuota(gpus=3)})) == {}


def test_plan__cpu_quota_and_job_quota_limit_a_team():
    queue = [pending("j0", cpus_per_worker=2.0, age_s=2), pending("j1", cpus_per_worker=2.0, age_s=1)]
    assert sorted(placed(decide(queue, quotas={"a": TeamQuota(cpus=3)}))) == ["j0"]
    assert sorted(placed(decide(queue, quotas={"a": TeamQuota(running_jobs=1)}))) == ["j0"]


def test_plan__quota_of_one_team_does_not_stop_another():
    queue = [pending("a0"), pending("b0", team="b")]
    assert sorted(placed(decide(queue, quotas={"a": TeamQuota(gpus=1), "b": TeamQuota(running_jobs=1)}))) == [
        "a0",
        "b0",
    ]


def test_plan__large_job_blocked_by_quota_keeps_its_team_from_filling_it_with_small_ones():
    runs = [running("r", "n", 2.0, team="a")]
    queue = [pending("large", 4.0, age_s=9), pending("small", 1.0, age_s=1), pending("cpu", 0.0, age_s=1)]
    made = decide(queue, runs=runs, quotas={"a": TeamQuota(gpus=4)})
    assert sorted(placed(made)) == ["cpu"]
    assert made.holders == ("large",)


def test_plan__job_that_waits_for_quota_keeps_its_turn_against_users_who_used_less():
    quotas = {"a": TeamQuota(gpus=4)}
    queue = [pending("large", 4.0, age_s=9, user="x"), pending("small", 1.0, age_s=1, user="y")]
    runs = [running("r", "n", 3.0, team="a", user="x")]
    assert placed(decide(queue, runs=runs, quotas=quotas, holders=("large",))) == {}
    assert placed(decide(queue, runs=[], quotas=quotas, holders=("large",))) == {"large": "n"}


def test_plan__zero_quota_makes_jobs_infeasible_not_waiting():
    made = decide([pending("j")], quotas={"a": TeamQuota(gpus=0)})
    assert made.reasons["j"].code == "infeasible_quota"


def test_plan__quota_never_stops_an_amount_of_zero():
    assert placed(decide([pending("j", 0.0)], nodes("n"), quotas={"a": TeamQuota(gpus=0)})) == {"j": "n"}


H, A = NodeTraits("H100"), NodeTraits("A100")
TWO_KINDS = [Node("h", 4, 64, traits=H), Node("a", 4, 64, traits=A)]
ONE_H = {"a": TeamQuota(gpus_by_kind={"h100": 1})}


def _of(kind: str, job_id: str, **fields: object) -> PendingJob:
    return pending(job_id, needs=NodeNeeds(kind), **fields)


def test_quota_of_a_kind__counts_the_kind_alone():
    queue = [_of("H100", "h0", age_s=9), _of("h100", "h1", age_s=8), _of("A100", "a0", age_s=7)]
    made = decide(queue, TWO_KINDS, quotas=ONE_H)
    assert placed(made) == {"h0": "h", "a0": "a"}
    reason = made.reasons["h1"]
    assert reason.code is ReasonCode.TEAM_QUOTA
    assert reason.shortage is not None
    assert (reason.shortage.total_gpus, reason.shortage.gpus) == (1, 1)


def test_quota_of_a_kind__running_jobs_count_by_the_nodes_they_are_on():
    runs = [running("r", "h", team="a"), running("s", "aaa", team="a")]
    assert placed(decide([_of("H100", "j")], TWO_KINDS, runs, quotas=ONE_H)) == {}
    assert placed(decide([_of("H100", "j")], TWO_KINDS, runs[1:], quotas=ONE_H)) == {"j": "h"}


def test_quota_of_a_kind__job_that_names_none_goes_where_the_whole_of_it_is_covered():
    assert placed(decide([pending("j", 2.0)], TWO_KINDS, quotas=ONE_H)) == {"j": "a"}
    made = decide([pending("j", 2.0)], TWO_KINDS[:1], quotas=ONE_H)
    assert made.reasons["j"].code is ReasonCode.INFEASIBLE_QUOTA
    runs = [running("r", "h", team="a")]
    made = decide([pending("j", 1.0)], TWO_KINDS[:1], runs, quotas=ONE_H)
    assert made.reasons["j"].code is ReasonCode.TEAM_QUOTA, "it is covered once the other has ended"


def test_quota_of_a_kind__several_jobs_that_name_none_do_not_exceed_it_together():
    made = decide([pending(f"j{i}", age_s=9 - i) for i in range(8)], TWO_KINDS, quotas=ONE_H)
    assert sorted(placed(made).values()) == ["a", "a", "a", "a", "h"]


def test_quota_of_a_kind__own_jobs_of_that_kind_alone_are_preempted_for_it():
    runs = [running("x", "a", team="a"), running("y", "h", team="a"), running("z", "a", team="a")]
    made = decide([_of("H100", "j", priority=5)], TWO_KINDS, runs, quotas=ONE_H)
    assert victims(made) == {"y": "j"}


def test_quota_of_a_kind__other_teams_are_not_bound():
    made = decide([_of("H100", f"j{i}", team="c", age_s=9 - i) for i in range(3)], TWO_KINDS, quotas=ONE_H)
    assert sorted(placed(made)) == ["j0", "j1", "j2"]
