"""What the policy does over time: nothing starves, equal teams get equal shares, whatever the stream of jobs."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from tests.bench.scheduling.fifo import greedy_fifo, plain_fifo
from tests.bench.scheduling.report import jain
from tests.bench.scheduling.simulator import Record, Site, TraceJob, simulate
from xsam.services.scheduling.policy.plan import plan
from xsam.services.scheduling.policy.types import Node
from xsam.services.settings import SchedulingSettings
from xsam.services.teams.quota import TeamQuota

HOUR_S = 3_600.0


def stream(
    prefix: str, *, every_s: float, run_s: float, until_s: float, seed: int = 1, **fields: object
) -> list[TraceJob]:
    """Jobs of one GPU that keep arriving."""
    rng = random.Random(seed)
    values: dict = {"team": prefix, "user": prefix, "priority": 0, "num_workers": 1, "gpus_per_worker": 1.0}
    values |= {"cpus_per_worker": 1.0} | fields
    return [
        TraceJob(f"{prefix}{i:05}", submit_s=i * every_s, run_s=run_s * rng.uniform(0.5, 1.5), **values)
        for i in range(int(until_s // every_s))
    ]


def large(**fields: object) -> TraceJob:
    """A gang that needs the whole cluster of `site`, submitted when the stream is under way."""
    values: dict = {"team": "big", "user": "bea", "priority": 0, "num_workers": 2, "gpus_per_worker": 8.0}
    return TraceJob("large", submit_s=HOUR_S, run_s=HOUR_S, cpus_per_worker=1.0, **values | fields)


def site(**fields: object) -> Site:
    """Two nodes of eight GPUs."""
    return Site((Node("m", 8, 64.0), Node("n", 8, 64.0)), **fields)


def start_h(records: dict[str, Record], job_id: str = "large") -> float:
    intervals = records[job_id].intervals_s
    return intervals[0][0] / HOUR_S if intervals else float("inf")


STREAMS = {
    "unknown length": {},
    "same team and user": {"team": "big", "user": "bea"},
    "true limits": {"max_run_time_s": 3_600.0},
    "estimates that are far too short": {"expected_run_time_s": 30.0},
    "limits that are far too long": {"max_run_time_s": 50 * HOUR_S},
}


@pytest.mark.parametrize("fields", STREAMS.values(), ids=STREAMS)
def test_large_job_starts_under_an_endless_stream_of_small_ones(fields):
    # Twice as much work as the cluster can do: it is never empty by chance.
    small = stream("s", every_s=60.0, run_s=1_800.0, until_s=14 * HOUR_S, **fields)
    config = SchedulingSettings(patience_s=6 * HOUR_S)
    records = simulate([*small, large()], site(), lambda s: plan(s, config), until_s=13 * HOUR_S)
    assert start_h(records) <= 12.0


def test_large_job_starts_under_a_stream_of_more_important_ones_that_leaves_it_room():
    # Six of the sixteen GPUs are in use on average, somewhere; the cluster is never empty by chance.
    small = stream("s", every_s=300.0, run_s=1_800.0, until_s=14 * HOUR_S, priority=5)
    config = SchedulingSettings(patience_s=6 * HOUR_S)
    records = simulate([*small, large()], site(), lambda s: plan(s, config), until_s=13 * HOUR_S)
    assert 6.0 < start_h(records) <= 12.0


def test_large_job_starves_under_the_same_stream_if_whatever_fits_is_started():
    """The tests above can fail: this is the policy without a reservation."""
    small = stream("s", every_s=60.0, run_s=1_800.0, until_s=30 * HOUR_S)
    records = simulate([*small, large()], site(), greedy_fifo, until_s=29 * HOUR_S)
    assert start_h(records) == float("inf")


def test_large_job_that_fills_its_quota_starts_under_a_stream_of_its_own_team():
    quotas = {"big": TeamQuota(gpus=8)}
    small = stream("s", every_s=120.0, run_s=1_800.0, until_s=14 * HOUR_S, team="big", user="zoe")
    records = simulate([*small, large(num_workers=1)], site(quotas=quotas), plan, until_s=13 * HOUR_S)
    assert start_h(records) <= 12.0


def test_every_large_job_of_several_starts_in_turn():
    small = stream("s", every_s=60.0, run_s=1_800.0, until_s=24 * HOUR_S)
    gangs = [replace(large(), job_id=f"large{i}") for i in range(3)]
    config = SchedulingSettings(patience_s=2 * HOUR_S)
    records = simulate([*small, *gangs], site(), lambda s: plan(s, config), until_s=23 * HOUR_S)
    assert all(start_h(records, gang.job_id) < 20.0 for gang in gangs)


def _shares(records: dict[str, Record], from_h: float) -> dict[str, float]:
    shares: dict[str, float] = {}
    for record in records.values():
        held = sum(max(0.0, end - max(start, from_h * HOUR_S)) for start, end in record.intervals_s)
        shares[record.job.team] = shares.get(record.job.team, 0.0) + held * record.job.gpus
    return shares


def test_equal_teams_converge_to_equal_shares_however_they_submit():
    # Same demand in GPU time, many times what there is: long and short jobs, one user and many, early and late.
    until_s = 24 * HOUR_S
    trace = [
        *stream("a", every_s=120.0, run_s=1_800.0, until_s=until_s),
        *stream("b", every_s=480.0, run_s=7_200.0, until_s=until_s, seed=2),
        *stream("c", every_s=240.0, run_s=1_800.0, until_s=until_s, gpus_per_worker=2.0, seed=3),
    ]
    records = simulate(trace, site(), plan, until_s=until_s)
    shares = _shares(records, from_h=6.0)
    assert jain(shares.values()) > 0.99
    assert sum(shares.values()) > 0.94 * 16 * 18 * HOUR_S


def study(num_trials: int) -> list[TraceJob]:
    """Trials of one GPU and half an hour each that all wait from the beginning."""
    trials = stream("trial", every_s=1.0, run_s=1_800.0, until_s=num_trials, team="search", user="sam")
    return [replace(trial, submit_s=0.0) for trial in trials]


def test_one_gpu_job_of_another_team_waits_for_a_trial_of_a_500_trial_study_and_no_longer():
    job = replace(large(num_workers=1, gpus_per_worker=1.0), job_id="small")
    records = simulate([*study(500), job], site(), plan, until_s=20 * HOUR_S)
    longest_h = 1_800.0 * 1.5 / HOUR_S
    assert 1.0 <= start_h(records, "small") <= 1.0 + longest_h
    assert sum(1 for record in records.values() if record.intervals_s) == 501
    assert start_h(simulate([*study(500), job], site(), plain_fifo, until_s=20 * HOUR_S), "small") > 12.0


def test_shares_follow_weights_over_time():
    until_s = 24 * HOUR_S
    trace = [
        *stream("a", every_s=120.0, run_s=1_800.0, until_s=until_s),
        *stream("b", every_s=120.0, run_s=1_800.0, until_s=until_s, seed=2),
    ]
    shares = _shares(simulate(trace, site(weights={"a": 3.0, "b": 1.0}), plan, until_s=until_s), from_h=6.0)
    assert shares["a"] / shares["b"] == pytest.approx(3.0, rel=0.1)


def test_a_late_team_catches_up_and_then_shares_equally():
    until_s = 30 * HOUR_S
    late = [
        replace(job, submit_s=job.submit_s + 6 * HOUR_S)
        for job in stream("b", every_s=120.0, run_s=1_800.0, until_s=24 * HOUR_S)
    ]
    trace = [*stream("a", every_s=120.0, run_s=1_800.0, until_s=until_s), *late]
    config = SchedulingSettings(half_life_s=2 * HOUR_S)
    records = simulate(trace, site(config=config), lambda s: plan(s, config), until_s=until_s)
    shares = _shares(records, from_h=18.0)
    assert shares["a"] / shares["b"] == pytest.approx(1.0, rel=0.1)


def test_preempted_jobs_finish_and_urgent_ones_hardly_wait():
    low = stream("low", every_s=60.0, run_s=1_800.0, until_s=6 * HOUR_S)
    high = stream("high", every_s=1_800.0, run_s=600.0, until_s=6 * HOUR_S, priority=10)
    records = simulate([*low, *high], site(), plan)
    assert all(record.is_done for record in records.values())
    assert sum(record.num_preemptions for record in records.values()) > 0
    assert max(record.wait_s for record in records.values() if record.job.team == "high") <= 15 * 60.0


def test_simulation_is_deterministic():
    trace = stream("a", every_s=120.0, run_s=1_800.0, until_s=6 * HOUR_S)
    first, second = simulate(trace, site(), plan), simulate(trace, site(), plan)
    assert {k: r.intervals_s for k, r in first.items()} == {k: r.intervals_s for k, r in second.items()}


def test_jain__is_one_for_equal_shares_and_one_over_n_for_a_monopoly():
    assert jain([3.0, 3.0, 3.0]) == pytest.approx(1.0)
    assert jain([9.0, 0.0, 0.0]) == pytest.approx(1 / 3)
