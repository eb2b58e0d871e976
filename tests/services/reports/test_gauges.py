"""What monitoring is told of the service, out of rows."""

from sqlalchemy import event, update

from tests.support import jobs, planning
from tests.support.jobs import ALICE, BOB
from xsam.services.cluster import leader
from xsam.services.cluster import service as cluster
from xsam.services.cluster.counters import DispatcherCounters
from xsam.services.cluster.service import ForeignHolding, NodeSeen
from xsam.services.db.clock import db_now
from xsam.services.db.session import Database
from xsam.services.jobs import queue
from xsam.services.jobs.models import Job
from xsam.services.jobs.states import FailureKind
from xsam.services.reports import gauges
from xsam.services.reports.gauges import Gauges

NODE = NodeSeen("n1", "node-1", num_cpus=4, num_gpus=2)
GPU = {"resources": {"gpus_per_worker": 1}}


def _read(database: Database) -> Gauges:
    with database.read() as session:
        return gauges.read(session)


def test_gauges__of_an_empty_service(database: Database) -> None:
    found = _read(database)
    assert (found.jobs, found.waiting, found.decided_s_ago, found.outcomes) == ([], {}, None, [])
    assert (found.nodes, found.dispatchers, found.num_studies) == ([], [], 0)


def test_jobs__are_counted_by_team_and_state_with_what_they_hold(database: Database) -> None:
    for _ in range(2):
        jobs.submit_and_claim(database, **GPU)
    waiting = jobs.submit(database, actor=BOB, resources={"gpus_per_worker": 1, "num_workers": 2})
    with database.unit_of_work() as session:
        session.execute(update(Job).where(Job.id == waiting).values(state_since=db_now(-90)))
    red, blue = sorted(_read(database).jobs, key=lambda one: one.team, reverse=True)
    assert (red.team, red.state, red.num_jobs, red.num_gpus, red.num_overdue) == (ALICE.team, "running", 2, 2, 0)
    assert (blue.team, blue.state, blue.num_jobs, blue.num_gpus) == (BOB.team, "queued", 1, 2)
    assert 90 <= blue.oldest_s < 150


def test_jobs__with_an_expired_lease_are_overdue_until_they_are_taken_back(database: Database) -> None:
    lease = jobs.submit_and_claim(database, **GPU)
    with database.unit_of_work() as session:
        session.execute(update(Job).where(Job.id == lease.job_id).values(lease_expires_at=db_now(-5)))
    assert [one.num_overdue for one in _read(database).jobs] == [1]
    jobs.reap(database)
    assert [(one.state, one.num_overdue) for one in _read(database).jobs] == [("queued", 0)]


def test_outcomes__are_counted_when_attempts_end_whoever_ends_them(database: Database) -> None:
    for actor in (ALICE, ALICE, BOB):
        lease = jobs.claim(database, jobs.submit(database, actor=actor))
        with database.unit_of_work() as session:
            queue.complete(session, lease, summary={})
    lease = jobs.submit_and_claim(database)
    with database.unit_of_work() as session:
        queue.fail(session, lease, kind=FailureKind.DIVERGED, message="loss is NaN")
    assert _read(database).outcomes == [("blue", "succeeded", 1), ("red", "diverged", 1), ("red", "succeeded", 2)]


def test_waiting__says_for_what_by_team(database: Database) -> None:
    planning.report_nodes(database, NODE)
    for actor in (ALICE, ALICE, BOB):
        jobs.submit(database, actor=actor, resources={"gpus_per_worker": 2})
    planning.decide(database, [NODE])
    found = _read(database)
    assert sum(number for codes in found.waiting.values() for number in codes.values()) == 2
    assert {code for codes in found.waiting.values() for code in codes} <= {"insufficient_resources", "reserved"}
    assert found.decided_s_ago is not None
    assert found.decided_s_ago < 60


def test_nodes__show_what_is_nobodys_and_what_is_set_aside(database: Database) -> None:
    held = (ForeignHolding("actor of somebody", num_gpus=1, num_cpus=2),)
    planning.report_nodes(database, NODE, NodeSeen("n2", "node-2", 8, 4, foreign=held, set_aside="no CUDA"))
    first, second = _read(database).nodes
    assert (first.num_gpus, first.foreign_gpus, first.is_set_aside) == (2, 0, False)
    assert (second.num_gpus, second.foreign_gpus, second.foreign_cpus, second.is_set_aside) == (4, 1, 2, True)


def test_dispatchers__bring_what_they_counted(database: Database) -> None:
    counted = DispatcherCounters(num_placements=7)
    counted.decisions.observe(0.03)
    counted.decisions.observe(99)
    with database.unit_of_work() as session:
        cluster.report_alive(session, "head:12:ab", nodes=[NODE], num_warm_runners=0, counters=counted)
        cluster.report_alive(session, "head:13:cd", nodes=[NODE], num_warm_runners=0)
        leader.acquire(session, leader.DISPATCH, "head:12:ab", lease_s=60)
    first, second = sorted(_read(database).dispatchers, key=lambda one: one.name)
    assert (first.name, first.is_leader, first.counters) == ("head:12", True, counted)
    assert (second.name, second.is_leader, second.counters.num_placements) == ("head:13", False, 0)
    assert first.counters.decisions.cumulative()[3:5] == [("0.05", 1.0), ("0.1", 1.0)]
    assert first.counters.decisions.cumulative()[-1] == ("+Inf", 2.0)


def test_counters__of_another_release_are_read_as_far_as_known() -> None:
    found = DispatcherCounters.of({"num_placements": 3, "num_of_tomorrow": 4})
    assert (found.num_placements, found.num_leases_lost) == (3, 0)


def test_gauges__cost_as_many_statements_whatever_has_happened(database: Database) -> None:
    def statements() -> int:
        seen: list[str] = []
        event.listen(database.engine, "before_cursor_execute", lambda *told: seen.append(told[2]))
        _read(database)
        return len(seen)

    planning.report_nodes(database, NODE)
    before = statements()
    for _ in range(5):
        lease = jobs.submit_and_claim(database)
        with database.unit_of_work() as session:
            queue.complete(session, lease, summary={})
    assert statements() == before
