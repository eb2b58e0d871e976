import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.services.scheduling.policy.builders import NOW, ago, pending, running
from xsam.services.scheduling.policy.order import ShareLedger, line_up
from xsam.services.settings import SchedulingSettings
from xsam.services.usage.decay import DecayedUsage, TeamShare, add_attempt, contribution, decay, resource_rate, usage_at

DAY_S = 86_400.0
durations = st.floats(0, 30 * DAY_S)
half_lives = st.floats(60.0, 60 * DAY_S)


def test_decay__halves_after_each_half_life():
    assert decay(800.0, 3 * DAY_S, DAY_S) == pytest.approx(100.0)


def test_decay__ignores_a_clock_that_runs_backwards():
    assert decay(5.0, -10.0, DAY_S) == 5.0


def test_contribution__is_rate_times_time_for_short_runs_and_bounded_for_endless_ones():
    assert contribution(4.0, 10.0, 1e6) == pytest.approx(40.0, rel=1e-5)
    assert contribution(4.0, 1e9, DAY_S) == pytest.approx(4.0 * DAY_S / math.log(2))


def test_contribution__equals_the_integral_summed_by_hand():
    steps = 20_000
    step_s = 3 * DAY_S / steps
    by_hand = sum(2.0 * step_s * 2 ** (-(3 * DAY_S - (i + 0.5) * step_s) / DAY_S) for i in range(steps))
    assert contribution(2.0, 3 * DAY_S, DAY_S) == pytest.approx(by_hand, rel=1e-6)


@given(durations, durations, half_lives)
def test_contribution__of_two_parts_in_a_row_is_that_of_the_whole(first_s, second_s, half_life_s):
    whole = contribution(3.0, first_s + second_s, half_life_s)
    parts = decay(contribution(3.0, first_s, half_life_s), second_s, half_life_s)
    parts += contribution(3.0, second_s, half_life_s)
    assert parts == pytest.approx(whole, rel=1e-9, abs=1e-6)


@given(st.lists(st.tuples(durations, durations, st.floats(0, 100)), max_size=6), st.randoms())
def test_add_attempt__does_not_depend_on_the_order_of_ends(attempts, rng):
    def total(order):
        usage = None
        for start_s, length_s, rate in order:
            ended_at = ago(start_s)
            usage = add_attempt(
                usage,
                rate=rate,
                started_at=ended_at - timedelta(seconds=length_s),
                ended_at=ended_at,
                half_life_s=DAY_S,
            )
        return usage_at(usage, NOW, DAY_S)

    shuffled = list(attempts)
    rng.shuffle(shuffled)
    assert total(shuffled) == pytest.approx(total(attempts), rel=1e-6, abs=1e-6)


def test_ledger__adds_what_running_jobs_used_so_far():
    config = SchedulingSettings(half_life_s=DAY_S, cpu_weight=0.0)
    shares = {"b": TeamShare(1.0, DecayedUsage(1_000.0, ago(DAY_S)), {"bob": DecayedUsage(600.0, ago(DAY_S))})}
    ledger = ShareLedger(shares, [running("r", "n", 2.0, age_s=100.0)], NOW, config)
    assert ledger.team_usage["b"] == pytest.approx(500.0 + 200.0, rel=1e-3)
    assert ledger.user_usage["b", "bob"] == pytest.approx(300.0 + 200.0, rel=1e-3)


def test_ledger__divides_by_the_weight():
    shares = {"a": TeamShare(4.0, DecayedUsage(100.0, NOW)), "b": TeamShare(1.0, DecayedUsage(50.0, NOW))}
    ledger = ShareLedger(shares, [], NOW, SchedulingSettings())
    assert ledger.team_key("a") == pytest.approx(25.0)
    assert ledger.team_key("b") == pytest.approx(50.0)


def test_resource_rate__weighs_gpus_and_cpus():
    assert resource_rate(8, 64, SchedulingSettings(gpu_weight=2.0, cpu_weight=0.25)) == pytest.approx(32.0)


def _order(jobs, shares=None, holders=(), *, charging=True):
    ledger = ShareLedger(shares or {}, [], NOW, SchedulingSettings())
    order = []
    for job in line_up(jobs, ledger, holders):
        order.append(job.job_id)
        if charging:
            ledger.charge(job)
    return order


def test_line_up__priority_first_then_time_then_id():
    jobs = [
        pending("late", age_s=1),
        pending("b-tie", age_s=5),
        pending("a-tie", age_s=5),
        pending("urgent", age_s=0, priority=1),
    ]
    assert _order(jobs) == ["urgent", "a-tie", "b-tie", "late"]


def test_line_up__alternates_between_teams_as_they_are_charged():
    jobs = [pending(f"{team}{i}", team=team, age_s=9 - i) for team in "ab" for i in range(3)]
    assert _order(jobs) == ["a0", "b0", "a1", "b1", "a2", "b2"]


def test_line_up__a_team_with_twice_the_weight_goes_twice_as_often():
    jobs = [pending(f"{team}{i}", team=team, age_s=90 - i) for team in "ab" for i in range(30)]
    first = _order(jobs, {"a": TeamShare(2.0)})[:30]
    assert sum(job_id.startswith("a") for job_id in first) == 20


def test_line_up__team_that_used_less_goes_first():
    jobs = [pending("heavy", team="a", age_s=900), pending("light", team="b", age_s=1)]
    assert _order(jobs, {"a": TeamShare(1.0, DecayedUsage(1e9, NOW))}) == ["light", "heavy"]


def test_line_up__user_that_used_less_goes_first_in_the_team():
    jobs = [pending("heavy", user="x", age_s=900), pending("light", user="y", age_s=1)]
    shares = {"a": TeamShare(1.0, DecayedUsage(1e6, NOW), {"x": DecayedUsage(1e6, NOW)})}
    assert _order(jobs, shares) == ["light", "heavy"]


def test_line_up__users_of_a_team_alternate():
    jobs = [pending(f"{user}{i}", user=user, age_s=9 - i) for user in "xy" for i in range(3)]
    assert _order(jobs) == ["x0", "y0", "x1", "y1", "x2", "y2"]


def test_line_up__promised_jobs_lead_their_priority_only():
    jobs = [
        pending("old", age_s=900),
        pending("second", age_s=1),
        pending("first", age_s=2),
        pending("top", priority=1),
    ]
    assert _order(jobs, holders=("first", "second", "gone")) == ["top", "first", "second", "old"]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.integers(0, 2), st.integers(0, 50))),
    st.booleans(),
)
def test_line_up__yields_every_job_once_by_priority(rows, charging):
    jobs = [
        pending(f"j{i}", team=team, user=user, priority=priority, age_s=age)
        for i, (team, user, priority, age) in enumerate(rows)
    ]
    order = _order(jobs, charging=charging)
    assert sorted(order) == sorted(job.job_id for job in jobs)
    by_id = {job.job_id: job.priority for job in jobs}
    assert [by_id[job_id] for job_id in order] == sorted(by_id.values(), reverse=True)
