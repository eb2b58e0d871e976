import subprocess
import sys

import pytest
from alembic.util import CommandError
from sqlalchemy import inspect, text

from tests.support import jobs
from xsam.services.db import migrate
from xsam.services.db.clock import utc_now
from xsam.services.db.session import Database
from xsam.services.tables import metadata

_UPGRADE = "import sys; from xsam.services.db import migrate; from xsam.services.db.session import Database; "
_UPGRADE += "migrate.upgrade(Database(sys.argv[1]))"


@pytest.fixture
def empty_database(empty_database_url: str):
    database = Database(empty_database_url)
    yield database
    database.dispose()


def _tables(database: Database) -> set[str]:
    return set(inspect(database.engine).get_table_names()) - {"alembic_version"}


def test_upgrade__makes_exactly_the_tables_of_the_models(empty_database: Database) -> None:
    assert not migrate.is_current(empty_database)
    migrate.upgrade(empty_database)
    assert migrate.is_current(empty_database)
    assert _tables(empty_database) == set(metadata.tables)
    migrate.check(empty_database, metadata)


def test_upgrade__of_a_current_database_changes_nothing(database: Database) -> None:
    job_id = jobs.submit(database)
    migrate.upgrade(database)
    assert jobs.read(database, job_id).id == job_id


def test_every_revision__goes_up_down_and_up_again(empty_database: Database) -> None:
    revisions = migrate.revisions()
    assert revisions
    for revision in revisions:
        migrate.upgrade(empty_database, revision)
        migrate.downgrade(empty_database, "-1")
        migrate.upgrade(empty_database, revision)
    migrate.check(empty_database, metadata)
    migrate.downgrade(empty_database, "base")
    assert _tables(empty_database) == set()


def test_upgrade__that_fails_leaves_nothing_behind(empty_database: Database) -> None:
    """DDL is transactional on both databases, so a half-made schema can't be met."""
    with empty_database.unit_of_work() as session:
        session.execute(text("CREATE TABLE job_events (id INTEGER)"))  # in the way of a later step of the migration
    with pytest.raises(Exception, match="job_events"):
        migrate.upgrade(empty_database)
    assert _tables(empty_database) == {"job_events"}
    assert not migrate.is_current(empty_database)


def test_upgrade__from_several_processes_at_once(empty_database_url: str) -> None:
    command = [sys.executable, "-c", _UPGRADE, empty_database_url]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], errors
    database = Database(empty_database_url)
    try:
        assert migrate.is_current(database)
        migrate.check(database, metadata)
    finally:
        database.dispose()


def test_upgrade__to_an_unknown_revision_is_refused(empty_database: Database) -> None:
    with pytest.raises(CommandError, match="nosuchrevision"):
        migrate.upgrade(empty_database, "nosuchrevision")


def test_revisions__form_one_line() -> None:
    assert len(set(migrate.revisions())) == len(migrate.revisions())


FIRST_REVISION = "600aa7716849"
_JOB = (
    "INSERT INTO jobs (id, kind, team, submitted_by, spec, labels, priority, num_workers, gpus_per_worker,"
    " cpus_per_worker, state, created_at, scheduled_at, attempt, num_epochs, epochs_done, progress)"
    " VALUES ('old', 'training', 'red', 'alice', '{}', '{}', 0, 1, 0, 1, 'paused',"
    " '2026-01-01 00:00:00', '2026-01-01 00:00:00', 1, 3, 1, '{}')"
)
_EVENT = (
    "INSERT INTO job_events (job_id, at, kind, actor, message, data)"
    " VALUES ('old', '2026-01-01 00:00:00', 'submitted', 'alice', 'queued', '{}')"
)


def test_upgrade_and_downgrade__keep_the_rows_of_every_earlier_version(empty_database: Database) -> None:
    """SQLite changes tables by copying and dropping them, which would take along whatever refers to them."""
    migrate.upgrade(empty_database, FIRST_REVISION)
    with empty_database.unit_of_work() as session:
        session.execute(text(_JOB))
        session.execute(text(_EVENT))
    migrate.upgrade(empty_database)
    job = jobs.read(empty_database, "old")
    assert (job.state, job.team, job.epochs_done, job.ran_s) == ("paused", "red", 1, 0)
    assert (utc_now() - job.state_since).total_seconds() < 300
    assert jobs.count(empty_database, "job_events") == 1
    migrate.downgrade(empty_database, FIRST_REVISION)
    assert jobs.count(empty_database, "jobs") == 1
    assert jobs.count(empty_database, "job_events") == 1
