"""What attempts use: booked in the transaction that ends them, by every way to end, and exactly once."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from tests.support import jobs
from tests.support.jobs import BOB
from xsam.services.db import migrate
from xsam.services.db.clock import utc_now
from xsam.services.db.session import Database
from xsam.services.errors import InvalidRequestError, LeaseLostError
from xsam.services.jobs import queue
from xsam.services.jobs.queue import Lease
from xsam.services.jobs.states import FailureKind
from xsam.services.reports import usage as service
from xsam.services.scheduling.policy.plan import DEFAULT_CONFIG
from xsam.services.settings import SchedulingSettings
from xsam.services.usage import ledger
from xsam.services.usage.ledger import Allocation, split_by_day
from xsam.services.usage.models import UsageDay, UsageShare
from xsam.services.usage.schemas import UsageRead

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
RESOURCES = {"num_workers": 2, "gpus_per_worker": 2, "cpus_per_worker": 3}

ENDINGS: dict[str, Callable[[Any, Lease], object]] = {
    "complete": lambda session, lease: queue.complete(session, lease, summary={}),
    "fail": lambda session, lease: queue.fail(session, lease, kind=FailureKind.USER, message="x"),
    "retry": lambda session, lease: queue.fail(session, lease, kind=FailureKind.INFRASTRUCTURE, message="x"),
    "release": lambda session, lease: queue.release(session, lease, outcome=FailureKind.PREEMPTED, message="x"),
    "cancel": queue.finish_cancelled,
    "revoke": lambda session, lease: queue.revoke(session, lease, message="x"),
}


def _usage(database: Database, **options: Any) -> UsageRead:
    with database.read() as session:
        return service.usage(session, **options)


def _run(database: Database, seconds: float, ending: str = "complete", **options: Any) -> Lease:
    lease = jobs.submit_and_claim(database, resources=RESOURCES, **options)
    jobs.shift_attempt(database, lease, started_s_ago=seconds)
    with database.unit_of_work() as session:
        ENDINGS[ending](session, lease)
    return lease


class TestBooking:
    @pytest.mark.parametrize("ending", ENDINGS)
    def test_every_end__books_the_attempt(self, database: Database, ending: str) -> None:
        _run(database, 900, ending)
        usage = _usage(database)
        assert sum(item.gpu_hours for item in usage.items) == pytest.approx(1.0, rel=0.02)
        assert sum(item.cpu_hours for item in usage.items) == pytest.approx(1.5, rel=0.02)
        assert sum(item.num_attempts for item in usage.items) == 1
        assert {(item.team, item.user) for item in usage.items} == {("red", "alice")}

    def test_attempt_that_found_no_place__books_nothing(self, database: Database) -> None:
        lease = jobs.submit_and_claim(database, resources=RESOURCES)
        jobs.shift_attempt(database, lease, started_s_ago=900)
        with database.unit_of_work() as session:
            queue.postpone(session, lease, delay_s=1, message="no room")
        assert _usage(database).items == []

    def test_late_runner__books_nothing(self, database: Database) -> None:
        lease = _run(database, 900)
        with pytest.raises(LeaseLostError), database.unit_of_work() as session:
            queue.complete(session, lease, summary={})
        assert sum(item.num_attempts for item in _usage(database).items) == 1

    def test_running_attempt__counts_up_to_now_in_what_people_read(self, database: Database) -> None:
        lease = jobs.submit_and_claim(database, resources=RESOURCES)
        jobs.shift_attempt(database, lease, started_s_ago=900)
        usage = _usage(database)
        assert sum(item.gpu_hours for item in usage.items) == pytest.approx(1.0, rel=0.02)
        assert sum(item.num_attempts for item in usage.items) == 0

    def test_attempts_ended_at_once__lose_nothing(self, database: Database) -> None:
        leases = [jobs.submit_and_claim(database, resources=RESOURCES) for _ in range(8)]
        for lease in leases:
            jobs.shift_attempt(database, lease, started_s_ago=900)

        def complete(lease: Lease) -> None:
            with database.unit_of_work() as session:
                queue.complete(session, lease, summary={})

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(complete, leases))
        assert sum(item.gpu_hours for item in _usage(database).items) == pytest.approx(8.0, rel=0.02)
        with database.read() as session:
            share = ledger.shares(session, {})["red"].usage
        assert share is not None
        expected = 8 * 900 * (4 * DEFAULT_CONFIG.gpu_weight + 6 * DEFAULT_CONFIG.cpu_weight)
        assert share.value_resource_s == pytest.approx(expected, rel=0.02)

    def test_numbers__are_those_the_process_was_told(self, empty_database_url: str) -> None:
        """Booking, shares and reports count by one group of settings, that of the process."""
        told = SchedulingSettings(half_life_s=900, gpu_weight=3.0, cpu_weight=0.0)
        database = Database(empty_database_url, scheduling=told)
        migrate.upgrade(database)
        with database.unit_of_work() as session:
            ledger.book(
                session, Allocation("red", "alice", 2.0, 8.0), started_at=NOON, ended_at=NOON + timedelta(seconds=900)
            )
            share = ledger.shares(session, {})["red"].usage
        assert share is not None
        assert share.value_resource_s == pytest.approx(6.0 * 900 / math.log(2) / 2)
        assert _usage(database).half_life_s == 900
        database.dispose()


class TestDays:
    def test_book__splits_an_attempt_at_midnight(self, database: Database) -> None:
        held = Allocation("red", "alice", gpus=2, cpus=1)
        with database.unit_of_work() as session:
            ledger.book(session, held, started_at=NOON, ended_at=NOON + timedelta(hours=30))
        with database.read() as session:
            rows = session.scalars(select(UsageDay).order_by(UsageDay.day)).all()
        assert [(row.day, row.gpu_s, row.num_attempts) for row in rows] == [
            (date(2026, 3, 1), 2 * 12 * 3600, 0),
            (date(2026, 3, 2), 2 * 18 * 3600, 1),
        ]

    @given(
        st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=4000)).map(lambda ago: NOON - ago),
        st.floats(min_value=0, max_value=20 * 86_400),
    )
    def test_split_by_day__keeps_the_sum_and_fits_each_day(self, start: datetime, seconds: float) -> None:
        parts = list(split_by_day(start, start + timedelta(seconds=seconds)))
        assert math.fsum(part for _, part in parts) == pytest.approx(seconds, abs=1e-3)
        days = [day for day, _ in parts]
        assert days == [start.date() + timedelta(days=n) for n in range(len(days))]
        assert all(0 <= part <= 86_400 for _, part in parts)


class TestShares:
    def test_book__adds_to_the_decayed_share(self, database: Database) -> None:
        held = Allocation("red", "alice", gpus=1, cpus=0)
        half_life = timedelta(seconds=DEFAULT_CONFIG.half_life_s)
        with database.unit_of_work() as session:
            ledger.book(session, held, started_at=NOON, ended_at=NOON + timedelta(hours=1))
        with database.read() as session:
            before = session.scalars(select(UsageShare)).one().value_resource_s
        with database.unit_of_work() as session:
            ledger.book(session, held, started_at=NOON + half_life, ended_at=NOON + half_life + timedelta(hours=1))
        with database.read() as session:
            row = session.scalars(select(UsageShare)).one()
        assert row.as_of == NOON + half_life + timedelta(hours=1)
        assert row.value_resource_s == pytest.approx(1.5 * before)

    def test_shares__add_users_up_to_teams_and_know_teams_that_used_nothing(self, database: Database) -> None:
        for user, hours in (("alice", 1), ("anna", 3)):
            held = Allocation("red", user, gpus=1, cpus=0)
            with database.unit_of_work() as session:
                ledger.book(session, held, started_at=NOON, ended_at=NOON + timedelta(hours=hours))
        with database.read() as session:
            shares = ledger.shares(session, {"green": 2.0})
        assert (shares["green"].weight, shares["green"].usage) == (2.0, None)
        red = shares["red"]
        assert set(red.users) == {"alice", "anna"}
        assert red.usage is not None
        assert red.usage.value_resource_s == pytest.approx(4 * 3600, rel=0.01)

    def test_usage__shows_where_each_team_stands(self, database: Database) -> None:
        _run(database, 3000)
        _run(database, 1000, actor=BOB)
        parts = {share.team: share.usage_fraction for share in _usage(database).shares}
        assert parts["red"] == pytest.approx(0.75, abs=0.01)
        assert math.fsum(parts.values()) == pytest.approx(1.0)


class TestReading:
    def test_usage__shows_only_the_days_and_the_team_asked_for(self, database: Database) -> None:
        for team, day in (("red", 0), ("red", 5), ("blue", 5)):
            start = NOON + timedelta(days=day)
            with database.unit_of_work() as session:
                held = Allocation(team, "alice", gpus=1, cpus=1)
                ledger.book(session, held, started_at=start, ended_at=start + timedelta(hours=1))
        usage = _usage(database, since=date(2026, 3, 2), until=date(2026, 3, 10), team="red")
        assert [(item.day, item.team, item.gpu_hours) for item in usage.items] == [(date(2026, 3, 6), "red", 1.0)]
        assert [share.team for share in usage.shares] == ["red"]

    def test_usage__shows_the_last_thirty_days_by_default(self, database: Database) -> None:
        usage = _usage(database)
        assert (usage.until - usage.since).days == 29
        assert abs((usage.as_of - utc_now()).total_seconds()) < 5

    @pytest.mark.parametrize(
        ("since", "until"), [(date(2026, 3, 2), date(2026, 3, 1)), (date(2020, 1, 1), date(2026, 3, 1))]
    )
    def test_usage__refuses_days_in_the_wrong_order_or_too_many(
        self, database: Database, since: date, until: date
    ) -> None:
        with pytest.raises(InvalidRequestError) as caught:
            _usage(database, since=since, until=until)
        assert caught.value.field == "since"
