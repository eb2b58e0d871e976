"""Fixtures that several rooms' tests share."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.databases import delete_all_rows, throwaway_postgres
from xsam.services.db import migrate
from xsam.services.db.session import Database
from xsam.services.stores.store import StorePlace

# The same examples on every run, and no limit on their time: a busy machine is not a failure.
settings.register_profile("tests", deadline=None, derandomize=True)
settings.load_profile("tests")

BOTH_DATABASES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.db)]


@pytest.fixture(scope="session")
def migrated_sqlite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file brought to the present schema once; copy it, never open it."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    database = Database(f"sqlite:///{path}")
    migrate.upgrade(database)
    database.dispose()
    return path


@pytest.fixture(scope="session")
def migrated_postgres() -> Iterator[Database]:
    """One migrated PostgreSQL database for the whole session."""
    with throwaway_postgres() as url:
        database = Database(url, pool_size=20)
        migrate.upgrade(database)
        yield database
        database.dispose()


@pytest.fixture
def sqlite_database(migrated_sqlite_file: Path, tmp_path: Path) -> Iterator[Database]:
    """A migrated SQLite file of this test alone."""
    path = tmp_path / "xsam.db"
    shutil.copy(migrated_sqlite_file, path)
    database = Database(f"sqlite:///{path}")
    yield database
    database.dispose()


@pytest.fixture
def postgres_database(migrated_postgres: Database) -> Iterator[Database]:
    """The session's PostgreSQL database, without any rows."""
    yield migrated_postgres
    delete_all_rows(migrated_postgres)


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """Address of an S3 service in a process of its own; the AWS variables are set while it runs."""
    from tests.support.buckets import s3_server

    with s3_server() as address:
        yield address


@pytest.fixture
def bucket_place(s3_endpoint: str, tmp_path: Path) -> StorePlace:
    """An empty bucket, and a scratch folder of this test alone."""
    from tests.support.buckets import new_bucket

    return StorePlace(tmp_path / "scratch", f"{new_bucket(s3_endpoint)}/some/prefix", s3_endpoint)


@pytest.fixture(params=["folder", "bucket"])
def store_place(request: pytest.FixtureRequest, tmp_path: Path) -> StorePlace:
    """Where artifacts lie: a folder, and a bucket."""
    if request.param == "folder":
        return StorePlace(tmp_path / "artifacts")
    place: StorePlace = request.getfixturevalue("bucket_place")
    return place


@pytest.fixture(params=BOTH_DATABASES)
def database(request: pytest.FixtureRequest) -> Database:
    """A migrated database without rows; the test runs once on SQLite and once on PostgreSQL."""
    name = "sqlite_database" if request.param == "sqlite" else "postgres_database"
    opened: Database = request.getfixturevalue(name)
    return opened


@pytest.fixture(params=BOTH_DATABASES)
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of a database without any table, on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    with throwaway_postgres() as url:
        yield url
