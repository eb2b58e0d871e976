import threading
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import update

from xsam.services.cluster import leader
from xsam.services.cluster.models import LeaderLease
from xsam.services.db.clock import db_now
from xsam.services.db.session import Database


def _acquire(database: Database, holder: str) -> bool:
    with database.unit_of_work() as session:
        return leader.acquire(session, leader.DISPATCH, holder, lease_s=60)


def _current(database: Database) -> str | None:
    with database.read() as session:
        return leader.current(session, leader.DISPATCH)


def _lapse(database: Database) -> None:
    with database.unit_of_work() as session:
        session.execute(update(LeaderLease).values(expires_at=db_now(-1)))


def _term(database: Database) -> int:
    with database.read() as session:
        return session.get_one(LeaderLease, leader.DISPATCH).term


def test_acquire__is_held_by_the_first_until_it_lapses(database: Database) -> None:
    assert _current(database) is None
    assert _acquire(database, "a")
    assert not _acquire(database, "b")
    assert _acquire(database, "a")
    assert _current(database) == "a"
    _lapse(database)
    assert _current(database) is None
    assert _acquire(database, "b")
    assert not _acquire(database, "a")  # the one that slept finds that it no longer leads


def test_acquire__counts_terms_and_renewals_do_not(database: Database) -> None:
    for _ in range(3):
        _acquire(database, "a")
    assert _term(database) == 1
    _lapse(database)
    _acquire(database, "a")
    assert _term(database) == 1
    _lapse(database)
    _acquire(database, "b")
    assert _term(database) == 2


def test_release__lets_another_one_lead_at_once(database: Database) -> None:
    _acquire(database, "a")
    with database.unit_of_work() as session:
        leader.release(session, leader.DISPATCH, "a")
    assert _acquire(database, "b")


def test_release__by_another_one_does_nothing(database: Database) -> None:
    _acquire(database, "a")
    with database.unit_of_work() as session:
        leader.release(session, leader.DISPATCH, "b")
    assert not _acquire(database, "b")


def test_leases__of_different_names_do_not_meet(database: Database) -> None:
    _acquire(database, "a")
    with database.unit_of_work() as session:
        assert leader.acquire(session, "sweep", "b", lease_s=60)


def test_acquire__of_many_at_once_makes_one_leader(database: Database) -> None:
    barrier = threading.Barrier(6)

    def run(number: int) -> bool:
        barrier.wait(timeout=30)
        return _acquire(database, f"d{number}")

    for _ in range(3):
        with ThreadPoolExecutor(6) as pool:
            assert sum(pool.map(run, range(6))) == 1
        _lapse(database)
