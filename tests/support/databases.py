"""Databases for tests: throw-away ones on a real PostgreSQL server, and how to empty them."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import URL, create_engine, make_url, text
from sqlalchemy.exc import OperationalError

from xsam.services.db.session import Database
from xsam.services.tables import metadata

SERVER_VARIABLE = "XSAM_TEST_POSTGRES_URL"
REQUIRE_VARIABLE = "XSAM_TEST_REQUIRE"
DEFAULT_SERVER = "postgresql+psycopg://postgres@127.0.0.1/postgres"
_CONNECT_TIMEOUT_S = 3


def postgres_server() -> URL:
    """Return the server for throw-away databases.

    Skips the test when no server answers, or fails it where XSAM_TEST_REQUIRE names postgres.
    """
    url = make_url(os.environ.get(SERVER_VARIABLE, DEFAULT_SERVER))
    engine = create_engine(url, connect_args={"connect_timeout": _CONNECT_TIMEOUT_S})
    try:
        with engine.connect():
            return url
    except OperationalError as e:
        reason = f"no PostgreSQL at {url.render_as_string()} (set {SERVER_VARIABLE}): {str(e).splitlines()[0]}"
        if "postgres" in os.environ.get(REQUIRE_VARIABLE, "").split(","):
            pytest.fail(reason)
        pytest.skip(reason)
    finally:
        engine.dispose()


@contextmanager
def throwaway_postgres() -> Iterator[str]:
    """Create an empty database on the server, yield its URL, and drop it."""
    server = postgres_server()
    name = f"xsam_test_{secrets.token_hex(6)}"
    admin = create_engine(server, isolation_level="AUTOCOMMIT")
    try:
        with admin.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
            connection.execute(text(f"ALTER DATABASE {name} SET synchronous_commit TO off"))  # nobody pulls its plug
        yield server.set(database=name).render_as_string(hide_password=False)
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    finally:
        admin.dispose()


def delete_all_rows(database: Database) -> None:
    """Leave a PostgreSQL database as its migrations made it, numbering included.

    TRUNCATE would make new files for every table and index: seventeen times as long as deleting a test's few rows.
    """
    used = text("SELECT sequencename FROM pg_sequences WHERE last_value IS NOT NULL")
    with database.unit_of_work() as session:
        for table in reversed(metadata.sorted_tables):
            session.execute(table.delete())
        for sequence in session.scalars(used).all():
            session.execute(text(f"ALTER SEQUENCE {sequence} RESTART"))
