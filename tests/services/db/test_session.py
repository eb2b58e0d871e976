import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError, StatementError

from tests.support import jobs
from xsam.services.db import session as db_session
from xsam.services.db.base import new_id
from xsam.services.db.clock import db_now, utc_now
from xsam.services.db.session import Database, DatabaseAwayError
from xsam.services.db.upsert import upsert
from xsam.services.errors import NotFoundError
from xsam.services.jobs import service
from xsam.services.jobs.models import Job, JobEvent
from xsam.services.metrics.models import AlphaEstimate, EpochMetric


@pytest.fixture
def absent_database(postgres_database: Database) -> Iterator[Database]:
    """A database of a server that has none of its name yet."""
    absent = Database(
        postgres_database.engine.url.set(database=f"late_{new_id()}").render_as_string(hide_password=False)
    )
    yield absent
    absent.dispose()
    _tell_server(postgres_database, f'DROP DATABASE IF EXISTS "{absent.engine.url.database}"')


def _tell_server(database: Database, statement: str) -> None:
    with database.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text(statement))


class TestWaiting:
    def test_wait__ends_once_the_database_is_there_and_says_once_why_it_waits(
        self, postgres_database: Database, absent_database: Database, caplog: pytest.LogCaptureFixture
    ) -> None:
        create = f'CREATE DATABASE "{absent_database.engine.url.database}"'
        maker = threading.Timer(1.2, _tell_server, (postgres_database, create))
        maker.start()
        absent_database.wait(300)
        maker.join()
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "does not exist" in caplog.text

    def test_wait__gives_up_with_the_reason(self, absent_database: Database) -> None:
        with pytest.raises(DatabaseAwayError, match=r"did not answer within 0 s: .*does not exist"):
            absent_database.wait(0)

    def test_wait__takes_a_file_as_it_is(self, database: Database) -> None:
        database.wait(0)


class TestTransactions:
    def test_unit_of_work__commits_at_the_end_and_rolls_back_on_an_error(self, database: Database) -> None:
        job_id = jobs.submit(database)
        with database.unit_of_work() as session:
            session.get_one(Job, job_id).priority = 5

        def fail_late() -> None:
            with database.unit_of_work() as session:
                session.get_one(Job, job_id).priority = 9
                session.flush()
                service.get(session, "nosuchjob")

        with pytest.raises(NotFoundError):
            fail_late()
        assert jobs.read(database, job_id).priority == 5

    def test_connection__that_broke_while_it_rested_is_replaced(
        self, postgres_database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        own = Database(postgres_database.engine.url.render_as_string(hide_password=False))
        with own.read() as one, own.read() as other:
            pid = text("SELECT pg_backend_pid()")
            one.scalar(pid)
            second = other.scalar(pid)
            other.rollback()
            one.execute(text(f"SELECT pg_terminate_backend({second}, 5000)"))
        monkeypatch.setattr(db_session, "PING_AFTER_S", 0.0)
        with own.read() as one, own.read() as other:
            found = {one.scalar(pid), other.scalar(pid)}
        assert second not in found
        assert len(found) == 2
        own.dispose()

    def test_connection__in_use_a_moment_ago_is_not_tried_first(
        self, postgres_database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def ping(connection: object) -> bool:
            raise AssertionError("tried")

        with postgres_database.read() as session:
            session.scalar(text("SELECT 1"))
        monkeypatch.setattr(postgres_database.engine.dialect, "do_ping", ping)
        monkeypatch.setattr(db_session, "PING_AFTER_S", 60.0)
        with postgres_database.read() as session:
            assert session.scalar(text("SELECT 1")) == 1

    def test_read__never_writes(self, database: Database) -> None:
        job_id = jobs.submit(database)
        with database.read() as session:
            session.get_one(Job, job_id).priority = 9
            session.flush()
        assert jobs.read(database, job_id).priority == 0

    def test_unit_of_work__of_many_threads_loses_no_update(self, database: Database) -> None:
        """Read, then write: on SQLite the write lock is taken first, on PostgreSQL the row is locked."""
        job_id = jobs.submit(database)

        def add_ten() -> None:
            for _ in range(10):
                with database.unit_of_work() as session:
                    session.get_one(Job, job_id, with_for_update=True).epochs_done += 1

        threads = [threading.Thread(target=add_ten) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert jobs.read(database, job_id).epochs_done == 40

    def test_read__sees_one_state_while_others_write_on_sqlite(self, sqlite_database: Database) -> None:
        job_id = jobs.submit(sqlite_database)
        with sqlite_database.read() as reader:
            before = reader.scalar(select(Job.priority).where(Job.id == job_id))
            jobs.set_columns(sqlite_database, job_id, priority=5)  # does not wait for the reader
            assert reader.scalar(select(Job.priority).where(Job.id == job_id)) == before

    def test_foreign_keys__are_enforced(self, database: Database) -> None:
        with pytest.raises(IntegrityError), database.unit_of_work() as session:
            session.add(JobEvent(job_id="nosuchjob", kind="x", actor="x", message="x"))

    def test_deleting_a_job__takes_its_rows_along(self, database: Database) -> None:
        lease = jobs.submit_and_claim(database)
        with database.unit_of_work() as session:
            session.delete(session.get_one(Job, lease.job_id))
        assert jobs.count(database, "job_events") == 0
        assert jobs.count(database, "job_attempts") == 0

    def test_running_jobs__must_hold_a_lease(self, database: Database) -> None:
        job_id = jobs.submit(database)
        with pytest.raises(IntegrityError, match="running_has_lease"):
            jobs.set_columns(database, job_id, state="running")

    def test_unknown_states__are_refused(self, database: Database) -> None:
        job_id = jobs.submit(database)
        with pytest.raises(IntegrityError, match="ck_jobs_state"):
            jobs.set_columns(database, job_id, state="lost")


class TestInstants:
    def test_instants__come_back_equal_and_in_utc(self, database: Database) -> None:
        job_id = jobs.submit(database)
        instant = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=5, minutes=30)))
        jobs.set_columns(database, job_id, finished_at=instant)
        stored = jobs.read(database, job_id).finished_at
        assert stored == instant
        assert stored is not None
        assert stored.utcoffset() == timedelta(0)

    def test_instants__without_a_zone_are_refused(self, database: Database) -> None:
        job_id = jobs.submit(database)
        with pytest.raises(StatementError, match="timezone-aware"):
            jobs.set_columns(database, job_id, finished_at=datetime(2026, 3, 1))  # noqa: DTZ001

    def test_db_now__agrees_with_this_machine_and_shifts(self, database: Database) -> None:
        with database.read() as session:
            now, later, earlier = session.execute(select(db_now(), db_now(90.5), db_now(-90))).one()
        assert abs((now - utc_now()).total_seconds()) < 5
        assert (later - now).total_seconds() == pytest.approx(90.5, abs=0.5)
        assert (now - earlier).total_seconds() == pytest.approx(90, abs=0.5)

    def test_db_now__compares_with_instants_from_python(self, database: Database) -> None:
        job_id = jobs.submit(database)
        for offset_s, is_past in ((-1, True), (60, False)):
            jobs.set_columns(database, job_id, scheduled_at=utc_now() + timedelta(seconds=offset_s))
            with database.read() as session:
                found = session.scalar(select(Job.id).where(Job.scheduled_at <= db_now()))
            assert (found is not None) is is_past

    def test_db_now__moves_inside_a_transaction(self, postgres_database: Database) -> None:
        """PostgreSQL's now() would stand still, and a long transaction would renew leases into the past."""
        with postgres_database.read() as session:
            first = session.execute(select(db_now())).scalar_one()
            session.execute(text("SELECT pg_sleep(0.01)"))
            assert session.execute(select(db_now())).scalar_one() > first

    test_db_now__moves_inside_a_transaction = pytest.mark.db(test_db_now__moves_inside_a_transaction)

    def test_utc_now__is_aware(self) -> None:
        assert utc_now().tzinfo is UTC


class TestUpsert:
    def test_upsert__replaces_rows_with_the_same_key(self, database: Database) -> None:
        lease = jobs.submit_and_claim(database)
        row = {"job_id": lease.job_id, "step": 1, "epoch": 1, "angle_rad": 0.1, "alphas": [0.0, 1.0]}
        for alpha in (0.25, 0.75):
            with database.unit_of_work() as session:
                upsert(
                    session, AlphaEstimate, [{**row, "alpha": alpha, "losses": [1.0, alpha]}], keys=("job_id", "step")
                )
        with database.read() as session:
            [stored] = session.scalars(select(AlphaEstimate)).all()
        assert (stored.alpha, stored.losses) == (0.75, [1.0, 0.75])

    def test_upsert__of_nothing_does_nothing(self, database: Database) -> None:
        with database.unit_of_work() as session:
            upsert(session, EpochMetric, [], keys=("job_id", "epoch"))
        assert jobs.count(database, "epoch_metrics") == 0


def test_new_id__is_short_unlike_others_and_safe_in_paths() -> None:
    ids = {new_id() for _ in range(2000)}
    assert len(ids) == 2000
    assert all(len(one) == 12 and one.isalnum() and one == one.lower() for one in ids)
    assert not set("01ilo") & set("".join(ids))
