"""What ran where, what it was for, and the service as a whole, on both databases."""

from datetime import timedelta

import pytest

from tests.support import jobs, planning, studies
from tests.support.jobs import ALICE, BOB
from tests.support.studies import HandRunner
from xsam.services.cluster import leader
from xsam.services.cluster.service import NodeSeen
from xsam.services.db.session import Database
from xsam.services.errors import InvalidRequestError
from xsam.services.jobs import queue
from xsam.services.reports import occupancy, spending, status, why
from xsam.services.reports.spending import SpendingBy

BIG = NodeSeen("big", "10.0.0.1", num_cpus=8, num_gpus=4)
SMALL = NodeSeen("small", "10.0.0.2", num_cpus=4, num_gpus=0)
TWO = {"batch_size": 64, "resources": {"num_workers": 2, "gpus_per_worker": 1, "cpus_per_worker": 2}}


def _claim(database: Database, job_id: str, *nodes: str) -> queue.Lease:
    with database.unit_of_work() as session:
        claimed = queue.claim(session, job_id, runner="d", lease_s=60, placement=list(nodes))
    assert claimed is not None
    return claimed.lease


@pytest.fixture
def two_jobs(database: Database) -> tuple[str, str]:
    """A job of red that has ended on both nodes, and one of blue that runs on one."""
    planning.report_nodes(database, BIG, SMALL)
    ended = _claim(database, jobs.submit(database, actor=ALICE, name="mine", **TWO), "big", "small")
    with database.unit_of_work() as session:
        queue.complete(session, ended, summary={})
    jobs.shift_attempt(database, ended, started_s_ago=3600)
    running = _claim(database, jobs.submit(database, actor=BOB, name="yours", **TWO), "big", "big")
    jobs.shift_attempt(database, running, started_s_ago=1800)
    return ended.job_id, running.job_id


def test_occupancy__says_who_held_which_node_from_when_to_when(database: Database, two_jobs: tuple[str, str]) -> None:
    with database.read() as session:
        found = occupancy.occupancy(session, visible_team="red")
    ended, _ = two_jobs
    assert [(node.node_id, node.is_alive, node.num_gpus) for node in found.nodes] == [
        ("big", True, 4),
        ("small", True, 0),
    ]
    blocks = [(one.node_id, one.job_id, one.team, one.num_workers, one.num_gpus) for one in found.items]
    assert sorted(blocks[:2]) == [("big", ended, "red", 1, 1), ("small", ended, "red", 1, 1)]
    assert blocks[2] == ("big", None, "blue", 2, 2)
    assert (found.items[2].name, found.items[2].user, found.items[2].finished_at) == (None, None, None)
    assert found.items[0].finished_at is not None
    with database.read() as session:
        assert {one.node_id for one in occupancy.occupancy(session, node="small").items} == {"small"}
        before = occupancy.occupancy(session, until=found.since)
        assert (before.items, before.has_more) == ([], False)
        with pytest.raises(InvalidRequestError, match="up to a year"):
            occupancy.occupancy(session, since=found.until, until=found.since)


def test_sample__holds_what_teams_hold(database: Database, two_jobs: tuple[str, str]) -> None:
    jobs.submit(database)
    for _ in range(2):
        with database.unit_of_work() as session:
            occupancy.take_sample(session)
    with database.read() as session:
        sample = occupancy.list_samples(session).items[-1]
    assert (sample.num_nodes, sample.num_gpus, sample.used_gpus, sample.used_cpus) == (2, 4, 2, 4)
    assert (sample.num_running, sample.num_queued, sample.teams) == (1, 1, {"blue": (2, 4)})


def test_spending__is_summed_by_what_is_asked_for(database: Database, two_jobs: tuple[str, str]) -> None:
    with database.read() as session:
        by_team = spending.spending(session, by=SpendingBy.TEAM)
        by_job = spending.spending(session, by=SpendingBy.JOB, team="red")
        limited = spending.spending(session, by=SpendingBy.USER, limit=1)
        by_optimizer = spending.spending(session, by=SpendingBy.OPTIMIZER)
        half = spending.spending(session, by=SpendingBy.TEAM, since=by_team.until - timedelta(minutes=30))
    assert [(one.key, round(one.gpu_hours, 2), one.num_attempts) for one in by_team.items] == [
        ("red", 2.0, 1),
        ("blue", 1.0, 1),
    ]
    assert [(one.key, one.name) for one in by_job.items] == [(two_jobs[0], "mine")]
    assert limited.rest is not None
    assert ([one.key for one in limited.items], round(limited.rest.gpu_hours, 2)) == (["alice"], 1.0)
    assert [(one.key, round(one.cpu_hours, 1)) for one in by_optimizer.items] == [("xsam", 6.0)]
    assert {one.key: round(one.gpu_hours, 1) for one in half.items} == {"red": 1.0, "blue": 1.0}


def test_spending__counts_trials_for_their_study(database: Database) -> None:
    runner = HandRunner.start(database, studies.submit(database))
    runner.run({"optimizer.rho": 0.1}, 0.5)
    jobs.shift_attempt(database, jobs.submit_and_claim(database), started_s_ago=1)
    with database.read() as session:
        found = spending.spending(session, by=SpendingBy.STUDY)
    assert {one.key: one.num_attempts for one in found.items} == {runner.study_id: 1, None: 1}


def test_queue__says_what_is_kept_for_whom(database: Database) -> None:
    nodes = planning.report_nodes(database, NodeSeen("n1", "node-1", num_cpus=4, num_gpus=0))
    whole = {"resources": {"cpus_per_worker": 4}, "limits": {"max_run_s": 600}}
    jobs.submit(database, actor=BOB, **whole)
    planning.decide(database, nodes)
    waits = jobs.submit(database, actor=ALICE, name="next", **whole)
    planning.decide(database, nodes)
    with database.read() as session:
        [promise] = why.queue(session, visible_team="red").promises
        [hidden] = why.queue(session, visible_team="blue").promises
    assert (promise.job_id, promise.name, promise.team, promise.node_ids) == (waits, "next", "red", ["n1"])
    assert promise.starts_at is not None
    assert (hidden.job_id, hidden.name, hidden.team) == (None, None, "red")


def test_status__says_who_leads_and_whether_ray_answers(database: Database) -> None:
    with database.read() as session:
        down = status.read_status(session, version="1.2.3")
    assert (down.version, down.leader, down.ray.is_live, down.database.is_current) == ("1.2.3", None, False, True)
    planning.report_nodes(database, BIG, SMALL)
    with database.unit_of_work() as session:
        leader.acquire(session, leader.DISPATCH, planning.DISPATCHER, lease_s=60)
    with database.read() as session:
        up = status.read_status(session, version="1.2.3")
    assert up.leader is not None
    assert (up.leader.id, up.num_dispatchers, up.ray.is_live) == (planning.DISPATCHER, 1, True)
    assert (up.ray.num_nodes, up.ray.num_gpus, up.ray.num_cpus) == (2, 4, 12)
    assert up.database.kind in {"sqlite", "postgresql"}
