"""Invariants of the plan, over random queues, clusters and quotas."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.services.scheduling.policy.builders import NOW, ago
from xsam.services.scheduling.policy.capacity import Cluster, Shape, to_units
from xsam.services.scheduling.policy.plan import Plan, plan
from xsam.services.scheduling.policy.types import Node, PendingJob, RunningJob, Snapshot
from xsam.services.settings import SchedulingSettings
from xsam.services.teams.quota import TeamQuota
from xsam.services.usage.decay import DecayedUsage, TeamShare

TEAMS = ("a", "b", "c")
GPUS = st.sampled_from([0.0, 0.25, 0.5, 1.0, 1.0, 2.0, 4.0, 8.0])
CPUS = st.sampled_from([0.0, 0.5, 1.0, 4.0])
SECONDS = st.sampled_from([None, None, 50.0, 500.0, 5_000.0])
CONFIGS = st.builds(
    SchedulingSettings,
    is_preemption_on=st.booleans(),
    is_backfill_on=st.booleans(),
    min_run_time_s=st.sampled_from([0.0, 600.0]),
    max_reservations=st.integers(0, 3),
    patience_s=st.sampled_from([0.0, 300.0, 1e6]),
)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """A cluster, jobs that this policy itself placed on it (so that they fit), and a queue."""
    nodes = [
        Node(f"n{i}", draw(st.sampled_from([0, 1, 2, 4, 8])), draw(st.sampled_from([4.0, 16.0, 64.0])))
        for i in range(draw(st.integers(1, 5)))
    ]
    filler = draw(st.lists(pending_jobs("old"), max_size=12, unique_by=lambda job: job.job_id))
    by_id = {job.job_id: job for job in filler}
    placements = plan(Snapshot(now=NOW, pending=filler, running=(), nodes=nodes)).placements
    running = [draw(_running(by_id[placement.job_id], placement.node_ids)) for placement in placements]
    nodes[0] = replace(nodes[0], is_schedulable=draw(st.booleans()))
    queue = draw(st.lists(pending_jobs("job"), max_size=20, unique_by=lambda job: job.job_id))
    limit = st.none() | st.integers(0, 12)
    return Snapshot(
        now=NOW,
        pending=queue,
        running=running,
        nodes=nodes,
        quotas={
            team: TeamQuota(draw(limit), draw(limit), draw(limit)) for team in draw(st.sets(st.sampled_from(TEAMS)))
        },
        shares={
            team: TeamShare(draw(st.sampled_from([0.5, 1.0, 3.0])), DecayedUsage(draw(st.floats(0, 1e6)), ago(500)))
            for team in draw(st.sets(st.sampled_from(TEAMS)))
        },
        holders=tuple(job.job_id for job in queue if draw(st.integers(0, 4)) == 0),
    )


def pending_jobs(prefix: str) -> st.SearchStrategy[PendingJob]:
    """Any queued job; the ids start with `prefix`."""
    return st.builds(
        PendingJob,
        job_id=st.integers(0, 99).map(lambda number: f"{prefix}-{number}"),
        team=st.sampled_from(TEAMS),
        user=st.sampled_from(["x", "y"]),
        priority=st.integers(0, 2),
        submitted_at=st.integers(0, 1_000).map(ago),
        num_workers=st.integers(1, 4),
        gpus_per_worker=GPUS,
        cpus_per_worker=CPUS,
        eligible_at=st.none() | st.integers(-100, 100).map(ago),
        max_run_time_s=SECONDS,
        expected_run_time_s=SECONDS,
    )


@st.composite
def _running(draw: st.DrawFn, job: PendingJob, node_ids: tuple[str, ...]) -> RunningJob:
    return RunningJob(
        job_id=job.job_id,
        team=job.team,
        user=job.user,
        priority=job.priority,
        started_at=ago(draw(st.sampled_from([0, 599, 600, 5_000]))),
        node_ids=node_ids,
        gpus_per_worker=job.gpus_per_worker,
        cpus_per_worker=job.cpus_per_worker,
        is_stopping=draw(st.integers(0, 3)) == 0,
        max_run_time_s=draw(SECONDS),
        expected_end_at=draw(st.none() | st.integers(-100, 5_000).map(lambda s: NOW + timedelta(seconds=s))),
    )


def _after(snapshot: Snapshot, made: Plan, *, without: frozenset[str] = frozenset()) -> list[RunningJob]:
    """What runs once the plan is carried out and the jobs in `without` left."""
    by_id = {job.job_id: job for job in snapshot.pending}
    started = [
        RunningJob(
            job_id=job.job_id,
            team=job.team,
            user=job.user,
            priority=job.priority,
            started_at=snapshot.now,
            node_ids=placement.node_ids,
            gpus_per_worker=job.gpus_per_worker,
            cpus_per_worker=job.cpus_per_worker,
        )
        for placement in made.placements
        for job in [by_id[placement.job_id]]
    ]
    return [job for job in snapshot.running if job.job_id not in without] + started


def _used(jobs: list[RunningJob], node_id: str) -> tuple[float, float]:
    gpus = sum(job.gpus_per_worker * job.node_ids.count(node_id) for job in jobs)
    return gpus, sum(job.cpus_per_worker * job.node_ids.count(node_id) for job in jobs)


@given(snapshots(), CONFIGS)
def test_every_queued_job_has_either_a_placement_or_a_reason(snapshot, config):
    made = plan(snapshot, config)
    started = [placement.job_id for placement in made.placements]
    assert len(set(started)) == len(started)
    assert sorted(started + list(made.reasons)) == sorted(job.job_id for job in snapshot.pending)
    for job_id, reason in made.reasons.items():
        assert reason.job_id == job_id
        assert reason.sentence().endswith(".")


@given(snapshots(), CONFIGS)
def test_no_node_is_oversubscribed(snapshot, config):
    after = _after(snapshot, plan(snapshot, config))
    for node in snapshot.nodes:
        gpus, cpus = _used(after, node.node_id)
        assert gpus <= node.num_gpus
        assert cpus <= node.num_cpus


@given(snapshots(), CONFIGS)
def test_whole_gpus_are_never_shared_with_fractions(snapshot, config):
    """Fractions packed as Ray packs them, one by one in order of start, leave room for every whole request."""
    after = _after(snapshot, plan(snapshot, config))
    cluster = Cluster(snapshot.nodes, after)
    for index, node in enumerate(cluster.nodes):
        whole = sum(int(job.gpus_per_worker) * job.node_ids.count(node.node_id) for job in after)
        shared = len(cluster.free_without(index, ()).shared)
        assert whole + shared <= node.num_gpus


@given(snapshots(), CONFIGS)
def test_gangs_are_complete_and_on_schedulable_nodes(snapshot, config):
    workers = {job.job_id: job.num_workers for job in snapshot.pending}
    schedulable = {node.node_id for node in snapshot.nodes if node.is_schedulable}
    for placement in plan(snapshot, config).placements:
        assert len(placement.node_ids) == workers[placement.job_id]
        assert set(placement.node_ids) <= schedulable


@given(snapshots(), CONFIGS)
def test_no_start_takes_a_team_over_its_quota(snapshot, config):
    made = plan(snapshot, config)
    after = _after(snapshot, made)
    asked = {job.job_id: job for job in snapshot.pending}
    for placement in made.placements:
        job = asked[placement.job_id]
        quota = snapshot.quotas.get(job.team, TeamQuota())
        team = [other for other in after if other.team == job.team]
        assert quota.running_jobs is None or len(team) <= quota.running_jobs
        assert not job.gpus_per_worker or quota.gpus is None or sum(other.gpus for other in team) <= quota.gpus
        assert not job.cpus_per_worker or quota.cpus is None or sum(other.cpus for other in team) <= quota.cpus


@given(snapshots(), CONFIGS)
def test_early_jobs_never_start(snapshot, config):
    started = {placement.job_id for placement in plan(snapshot, config).placements}
    for job in snapshot.pending:
        if job.eligible_at is not None and job.eligible_at > NOW:
            assert job.job_id not in started


@given(snapshots(), CONFIGS)
def test_victims_are_less_important_and_ran_long_enough(snapshot, config):
    priorities = {job.job_id: job.priority for job in snapshot.pending}
    by_id = {job.job_id: job for job in snapshot.running}
    made = plan(snapshot, config)
    asked = [preemption.victim_job_id for preemption in made.preemptions]
    assert len(set(asked)) == len(asked)
    assert config.is_preemption_on or not asked
    for preemption in made.preemptions:
        victim = by_id[preemption.victim_job_id]
        assert victim.priority < priorities[preemption.for_job_id]
        assert not victim.is_stopping
        assert (NOW - victim.started_at).total_seconds() >= config.min_run_time_s


@given(snapshots(), CONFIGS)
def test_whoever_preempts_fits_once_the_victims_left_and_every_victim_is_needed(snapshot, config):
    """Need is judged where nothing is kept for anybody else: what is kept cannot be seen from outside."""
    made = plan(snapshot, config)
    if not made.preemptions:
        return
    winner = made.preemptions[0].for_job_id
    job = next(job for job in snapshot.pending if job.job_id == winner)
    victims = frozenset(p.victim_job_id for p in made.preemptions if p.for_job_id == winner)
    stopping = frozenset(job.job_id for job in snapshot.running if job.is_stopping)
    shape = Shape(job.num_workers, to_units(job.gpus_per_worker), to_units(job.cpus_per_worker))

    def fits(gone: frozenset[str]) -> bool:
        left = _after(snapshot, made, without=gone)
        quota = snapshot.quotas.get(job.team, TeamQuota())
        team = [other for other in left if other.team == job.team]
        gpus, cpus = job.num_workers * job.gpus_per_worker, job.num_workers * job.cpus_per_worker
        return (
            (quota.running_jobs is None or len(team) < quota.running_jobs)
            and (not gpus or quota.gpus is None or sum(other.gpus for other in team) + gpus <= quota.gpus)
            and (not cpus or quota.cpus is None or sum(other.cpus for other in team) + cpus <= quota.cpus)
            and Cluster(snapshot.nodes, left).book_without(()).find(shape) is not None
        )

    assert fits(victims | stopping)
    if made.holders == (winner,) and not snapshot.holders:
        assert not any(fits((victims | stopping) - {victim}) for victim in victims)


@given(snapshots(), CONFIGS, st.integers(0, 2**32))
def test_same_input_same_plan_in_whatever_order_it_is_listed(snapshot, config, seed):
    rng = random.Random(seed)
    shuffled = replace(
        snapshot,
        pending=rng.sample(list(snapshot.pending), len(snapshot.pending)),
        running=rng.sample(list(snapshot.running), len(snapshot.running)),
        nodes=rng.sample(list(snapshot.nodes), len(snapshot.nodes)),
        quotas=dict(reversed(snapshot.quotas.items())),
        shares=dict(reversed(snapshot.shares.items())),
    )
    first, second = plan(snapshot, config), plan(shuffled, config)
    assert first == second


@given(snapshots(), CONFIGS)
def test_reading_one_reason_does_not_change_another(snapshot, config):
    at_once = dict(plan(snapshot, config).reasons)
    made = plan(snapshot, config)
    for job_id in sorted(at_once, reverse=True):
        assert made.reasons[job_id] == at_once[job_id]


@given(snapshots(), CONFIGS)
def test_infeasible_jobs_stay_out_of_an_empty_cluster_too(snapshot, config):
    made = plan(snapshot, config)
    empty = replace(snapshot, running=(), nodes=[replace(node, is_schedulable=True) for node in snapshot.nodes])
    for job in snapshot.pending:
        if job.job_id in made.reasons and made.reasons[job.job_id].code.is_infeasible:
            alone = plan(replace(empty, pending=[job], holders=()), config)
            assert alone.reasons[job.job_id].code.is_infeasible


@settings(max_examples=50)
@given(snapshots())
def test_feasible_job_alone_on_the_empty_cluster_starts(snapshot):
    empty = replace(
        snapshot, running=(), holders=(), nodes=[replace(node, is_schedulable=True) for node in snapshot.nodes]
    )
    for job in snapshot.pending:
        ready = replace(job, eligible_at=None)
        made = plan(replace(empty, pending=[ready]))
        assert made.placements or made.reasons[job.job_id].code.is_infeasible


@settings(max_examples=50)
@given(snapshots())
def test_first_in_line_starts_whenever_it_fits(snapshot):
    """Nobody behind can take what the first in line could use."""
    made = plan(replace(snapshot, holders=()), SchedulingSettings(is_preemption_on=False))
    first = [reason for reason in made.reasons.values() if reason.position == 1]
    if first and not made.placements and first[0].code == "insufficient_resources":
        job = next(job for job in snapshot.pending if job.job_id == first[0].job_id)
        shape = Shape(job.num_workers, to_units(job.gpus_per_worker), to_units(job.cpus_per_worker))
        assert Cluster(snapshot.nodes, snapshot.running).book_without(()).find(shape) is None


@settings(max_examples=50)
@given(snapshots(), st.sampled_from(TEAMS))
def test_raising_a_priority_never_stops_a_job_that_would_start(snapshot, team):
    """With everything else equal, and nobody promised anything, the most important job starts if it ever would."""
    config = SchedulingSettings(is_preemption_on=False)
    base = replace(snapshot, holders=())
    started = {placement.job_id for placement in plan(base, config).placements}
    for job in snapshot.pending:
        if job.job_id in started and job.team == team:
            raised = [replace(other, priority=9) if other is job else other for other in snapshot.pending]
            assert job.job_id in {p.job_id for p in plan(replace(base, pending=raised), config).placements}
