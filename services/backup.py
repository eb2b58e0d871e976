"""A whole service in one file: all rows and all files of the artifact store, and back into an empty one.

Rows are kept as JSON lines, so a backup of SQLite can be restored into PostgreSQL and the other way round. Files are
copied before the rows are read: a checkpoint that is ahead of its rows would lose epochs, one that is behind loses
nothing. Jobs that run meanwhile are copied as they are; restored, their leases have run out, so they are queued again
and go on from their newest checkpoint.
"""

import io
import json
import os
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

from pydantic import BaseModel
from sqlalchemy import JSON, Connection, Date, Integer, Table, func, insert, select, text

from xsam.services.db import migrate
from xsam.services.db.base import UtcDateTime
from xsam.services.db.clock import utc_now
from xsam.services.db.session import Database
from xsam.services.db.text import dump_json
from xsam.services.errors import ServiceError
from xsam.services.stores.store import ArtifactStore
from xsam.services.tables import metadata

_CHUNK = 1000
_MANIFEST = "manifest.json"
_ROWS, _FILES = "rows/", "files/"


class BackupError(ServiceError):
    """A backup can't be made or restored; the message says why and what to do."""

    code = "backup"


class Manifest(BaseModel):
    """What a backup holds; written last, so a backup without one is incomplete."""

    release: str
    revision: str
    made_at: datetime
    num_rows: dict[str, int]
    num_files: int
    num_bytes: int


def make(database: Database, store: ArtifactStore, target: Path, *, with_files: bool = True) -> Manifest:
    """Write a backup; the file is there when it is whole, and not before.

    Args:
        database: with this release's schema.
        store: whose files go with them.
        target: the file to write; one that is there already is replaced.
        with_files: False leaves the artifact store out, for those who keep it by other means.

    Raises:
        BackupError: the database has another release's schema.
    """
    if not migrate.is_current(database):
        raise BackupError("the database does not have this release's schema; back it up with the release it belongs to")
    partial = target.with_name(target.name + ".partial")
    try:
        with open(partial, "wb", opener=_private) as file, tarfile.open(fileobj=file, mode="w") as archive:
            num_files, num_bytes = _add_files(archive, store) if with_files else (0, 0)
            manifest = Manifest(
                release=version("xsam"),
                revision=migrate.revisions()[-1],
                made_at=utc_now(),
                num_rows=_add_rows(archive, database),
                num_files=num_files,
                num_bytes=num_bytes,
            )
            _add(archive, _MANIFEST, io.BytesIO(manifest.model_dump_json().encode()))
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return manifest


def restore(database: Database, store: ArtifactStore, source: Path) -> Manifest:
    """Bring a backup into an empty database and an empty artifact store: all of it, or nothing.

    Raises:
        BackupError: the backup is not whole or of another release, or there is something already.
    """
    try:
        with tarfile.open(source, mode="r:") as archive:
            manifest = _read_manifest(archive)
            migrate.upgrade(database)
            _check_empty(database, store)
            with database.unit_of_work() as session, store.filled() as put:
                for member in archive:
                    if member.isfile() and member.name.startswith(_FILES):
                        put(member.name.removeprefix(_FILES), _open(archive, member.name))
                _insert_rows(session.connection(), archive, manifest)
    except (tarfile.TarError, OSError) as e:
        raise BackupError(f"{source} can't be restored: {e}") from e
    return manifest


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _add_files(archive: tarfile.TarFile, store: ArtifactStore) -> tuple[int, int]:
    num_files = num_bytes = 0
    for one in store.list():
        try:
            with store.open(one.name) as file:
                num_bytes += _add(archive, _FILES + one.name, file)
            num_files += 1
        except FileNotFoundError:
            continue  # a checkpoint that was pruned meanwhile
    return num_files, num_bytes


def _add(archive: tarfile.TarFile, name: str, file: IO[bytes]) -> int:
    """Add what a file holds now; what is appended meanwhile stays out."""
    info = tarfile.TarInfo(name)
    info.size = file.seek(0, os.SEEK_END)
    info.mode = 0o600
    file.seek(0)
    archive.addfile(info, file)
    return info.size


def _add_rows(archive: tarfile.TarFile, database: Database) -> dict[str, int]:
    """Add all tables as of one moment."""
    counts = {}
    options = {} if database.is_sqlite else {"isolation_level": "REPEATABLE READ"}
    with database.engine.connect().execution_options(**options) as connection:
        for table in metadata.sorted_tables:
            with tempfile.TemporaryFile() as spool:
                counts[table.name] = _write_rows(connection, table, spool)
                _add(archive, f"{_ROWS}{table.name}.jsonl", spool)
    return counts


def _write_rows(connection: Connection, table: Table, spool: IO[bytes]) -> int:
    number = 0
    result = connection.execution_options(yield_per=_CHUNK).execute(select(table).order_by(*table.primary_key))
    for row in result.mappings():
        spool.write(json.dumps(dict(row), default=_as_text).encode() + b"\n")
        number += 1
    return number


def _as_text(value: object) -> str:
    if isinstance(value, datetime | date):
        return value.isoformat()
    raise TypeError(f"a row holds a {type(value).__name__}, which a backup can't")


def _read_manifest(archive: tarfile.TarFile) -> Manifest:
    try:
        manifest = Manifest.model_validate_json(_open(archive, _MANIFEST).read())
    except KeyError as e:
        raise BackupError("the backup is not whole: it has no manifest; take another one") from e
    if manifest.revision != migrate.revisions()[-1]:
        raise BackupError(
            f"the backup is of release {manifest.release} with schema {manifest.revision}, this release has "
            f"{migrate.revisions()[-1]}; restore it with that release, then upgrade"
        )
    return manifest


def _check_empty(database: Database, store: ArtifactStore) -> None:
    with database.read() as session:
        for table in metadata.sorted_tables:
            if session.scalar(select(func.count()).select_from(table)):
                raise BackupError(f"the database is not empty: {table.name} has rows; restore into a new one")
    if store.names(""):
        raise BackupError(f"{store.name} is not empty; move it away first")


def _insert_rows(connection: Connection, archive: tarfile.TarFile, manifest: Manifest) -> None:
    for table in metadata.sorted_tables:
        number = 0
        for rows in _read_rows(_open(archive, f"{_ROWS}{table.name}.jsonl"), table):
            _insert(connection, table, rows)
            number += len(rows)
        if number != manifest.num_rows[table.name]:
            raise BackupError(
                f"the backup has {number} rows of {table.name}, but {manifest.num_rows[table.name]} went in"
            )
        _go_on_numbering(connection, table)


def _insert(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows; into PostgreSQL by COPY, which takes a fraction of the time of as many statements."""
    if connection.dialect.name != "postgresql":
        connection.execute(insert(table), list(rows))
        return
    is_document = [isinstance(column.type, JSON) for column in table.columns]
    names = [column.name for column in table.columns]
    quote = connection.dialect.identifier_preparer.quote
    command = f"COPY {quote(table.name)} ({', '.join(map(quote, names))}) FROM STDIN"
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(command) as copy:
        for row in rows:
            values = [row.get(name) for name in names]
            copy.write_row(
                [
                    dump_json(value) if is_json and value is not None else value
                    for value, is_json in zip(values, is_document, strict=True)
                ]
            )


def _read_rows(file: IO[bytes], table: Table) -> Iterator[Sequence[Mapping[str, Any]]]:
    chunk = []
    for line in file:
        row = json.loads(line)
        chunk.append({name: _as_value(table, name, value) for name, value in row.items()})
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _as_value(table: Table, name: str, value: Any) -> Any:
    kind = table.c[name].type
    if value is not None and isinstance(kind, UtcDateTime):
        return datetime.fromisoformat(value)
    if value is not None and isinstance(kind, Date):
        return date.fromisoformat(value)
    return value


def _go_on_numbering(connection: Connection, table: Table) -> None:
    """Let PostgreSQL number the next row after the highest one; SQLite does so by itself."""
    column = table.autoincrement_column
    if connection.dialect.name == "sqlite" or column is None or not isinstance(column.type, Integer):
        return
    highest = connection.scalar(select(func.max(column)))
    if highest is not None:
        sequence = text("SELECT setval(pg_get_serial_sequence(:table, :column), :highest)")
        connection.execute(sequence, {"table": table.name, "column": column.name, "highest": highest})


def _open(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    file = archive.extractfile(name)
    if file is None:
        raise KeyError(name)
    return file
