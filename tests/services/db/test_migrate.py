import subprocess
import sys

import pytest
from alembic.util import CommandError
from sqlalchemy import inspect, text

from services.db import migrate
from services.db.schema import metadata
from services.db.session import Database
from tests.support import jobs

_UPGRADE = "import sys; from services.db import migrate; from services.db.session import Database; "
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
    migrate.check(empty_database)


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
    migrate.check(empty_database)
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
        migrate.check(database)
    finally:
        database.dispose()


def test_upgrade__to_an_unknown_revision_is_refused(empty_database: Database) -> None:
    with pytest.raises(CommandError, match="nosuchrevision"):
        migrate.upgrade(empty_database, "nosuchrevision")


def test_revisions__form_one_line() -> None:
    assert len(set(migrate.revisions())) == len(migrate.revisions())
