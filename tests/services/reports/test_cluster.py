from dataclasses import replace

from sqlalchemy import update

from tests.support import jobs, planning
from tests.support.jobs import ALICE, BOB
from xsam.services.cluster import leader
from xsam.services.cluster.models import Dispatcher
from xsam.services.cluster.schemas import ClusterRead
from xsam.services.cluster.service import ForeignHolding, NodeSeen
from xsam.services.db.clock import db_now
from xsam.services.db.session import Database
from xsam.services.jobs import queue
from xsam.services.reports import cluster as overview

BIG = NodeSeen("big", "10.0.0.1", num_cpus=8, num_gpus=4)
SMALL = NodeSeen("small", "10.0.0.2", num_cpus=4, num_gpus=0)


def _overview(database: Database, visible_team: str | None = None) -> ClusterRead:
    with database.read() as session:
        return overview.overview(session, visible_team=visible_team)


def test_overview__before_any_report_is_empty_and_not_live(database: Database) -> None:
    cluster = _overview(database)
    assert (cluster.is_live, cluster.seen_at, cluster.nodes, cluster.dispatchers) == (False, None, [], [])


def test_overview__shows_what_runs_where_and_what_is_used(database: Database) -> None:
    planning.report_nodes(database, BIG, SMALL)
    job_id = jobs.submit(
        database, batch_size=66, resources={"num_workers": 3, "gpus_per_worker": 1, "cpus_per_worker": 2}
    )
    with database.unit_of_work() as session:
        queue.claim(session, job_id, runner="d", lease_s=60, placement=["big", "big", "small"])
        leader.acquire(session, leader.DISPATCH, planning.DISPATCHER, lease_s=60)
    cluster = _overview(database)
    big, small = cluster.nodes
    assert (big.used_gpus, big.used_cpus, small.used_gpus, small.used_cpus) == (2, 4, 1, 2)
    assert [(one.job_id, one.num_workers, one.user) for one in big.jobs] == [(job_id, 2, "alice")]
    assert (cluster.num_gpus, cluster.num_cpus, cluster.used_gpus, cluster.used_cpus) == (4, 12, 3, 6)
    [dispatcher] = cluster.dispatchers
    assert (cluster.is_live, dispatcher.id, dispatcher.is_leader) == (True, planning.DISPATCHER, True)


def test_overview__with_the_dispatcher_gone_shows_what_was_last_seen(database: Database) -> None:
    planning.report_nodes(database, BIG)
    with database.unit_of_work() as session:
        session.execute(update(Dispatcher).values(seen_at=db_now(-3600)))
    cluster = _overview(database)
    assert (cluster.is_live, cluster.dispatchers) == (False, [])
    assert [node.id for node in cluster.nodes] == ["big"]
    assert cluster.seen_at is not None


def test_overview__shows_lost_nodes_after_the_living(database: Database) -> None:
    planning.report_nodes(database, BIG, SMALL)
    planning.report_nodes(database, SMALL)
    cluster = _overview(database)
    assert [(node.id, node.is_alive) for node in cluster.nodes] == [("small", True), ("big", False)]
    assert cluster.num_gpus == 0


def test_overview__hides_who_is_behind_other_teams_jobs(database: Database) -> None:
    planning.report_nodes(database, BIG)
    for actor in (ALICE, BOB):
        job_id = jobs.submit(database, actor=actor)
        with database.unit_of_work() as session:
            queue.claim(session, job_id, runner="d", lease_s=60, placement=["big"])
    [node] = _overview(database, visible_team="red").nodes
    assert [(one.team, one.job_id is None, one.user) for one in node.jobs] == [
        ("red", False, "alice"),
        ("blue", True, None),
    ]


def test_overview__names_what_ray_holds_for_others_and_which_gpus_are_set_aside(database: Database) -> None:
    held = ForeignHolding("placement group theirs of Ray job 02000000", num_gpus=1.0, num_cpus=2.0)
    planning.report_nodes(database, replace(BIG, foreign=(held,)), replace(SMALL, set_aside="its GPU 0 is lost"))
    big, small = _overview(database).nodes
    assert [(one.what, one.num_gpus, one.num_cpus) for one in big.foreign] == [(held.what, 1.0, 2.0)]
    assert (big.set_aside, small.foreign, small.set_aside) == (None, [], "its GPU 0 is lost")
    assert (big.used_gpus, big.used_cpus) == (0, 0), "used is what jobs of this service use"
    planning.report_nodes(database, BIG, SMALL)
    assert [(node.foreign, node.set_aside) for node in _overview(database).nodes] == [([], None)] * 2
