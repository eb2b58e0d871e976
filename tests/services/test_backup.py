"""Everything is destroyed between a backup and its restore, on both databases, also from one into the other."""

import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from tests.conftest import BOTH_DATABASES
from tests.support import jobs
from tests.support.callers import admin_token, make_member, make_secret, make_team
from tests.support.databases import throwaway_postgres
from tests.support.row_runner import alpha_record, epoch_record
from xsam.services import backup
from xsam.services.artifacts import service as artifacts
from xsam.services.artifacts.store import JobFolder
from xsam.services.backup import BackupError
from xsam.services.db import migrate
from xsam.services.db.clock import db_now
from xsam.services.db.session import Database
from xsam.services.jobs import queue
from xsam.services.jobs.models import Job
from xsam.services.jobs.states import JobState
from xsam.services.metrics import service as metrics
from xsam.services.metrics.records import CheckpointRecord
from xsam.services.stores.folder import FolderStore
from xsam.services.stores.store import StorePlace
from xsam.services.tables import metadata
from xsam.services.teams import tokens
from xsam.services.teams.roles import Role

CHECKPOINT = CheckpointRecord(epoch=1, step=10, name="step-10", size_bytes=4, sha256="ab" * 32, is_best=True)


SECRET = "not-in-the-clear-here"


@pytest.fixture(params=BOTH_DATABASES)
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """Another database, without tables."""
    if request.param == "sqlite":
        opened = Database(f"sqlite:///{tmp_path / 'other.db'}")
        yield opened
        opened.dispose()
        return
    with throwaway_postgres() as url:
        opened = Database(url)
        yield opened
        opened.dispose()


@pytest.fixture
def lived(database: Database, tmp_path: Path) -> Path:
    """Rows in many tables, a job that runs, and files; returns the artifact store."""
    root = tmp_path / "data" / "artifacts"
    make_team(database, "red")
    make_member(database, "ann", "red", Role.MEMBER)
    make_secret(database, "red", value=SECRET)
    done = jobs.submit_and_claim(database, labels={"an": "Grüße"})
    with database.unit_of_work() as session:
        queue.complete(session, done, summary={"final_accuracy": 0.5})
    lease = jobs.submit_and_claim(database)
    with database.unit_of_work() as session:
        metrics.write_epochs(session, lease, [epoch_record(1)])
        metrics.write_alphas(session, lease, [alpha_record(1)])
        artifacts.write_checkpoints(session, lease, [CHECKPOINT], kept=["step-10"])
    folder = JobFolder(root, lease.job_id).checkpoints / "step-10"
    folder.mkdir(parents=True)
    (folder / "rank-0.pt").write_bytes(b"\0\1\2\3")
    return root


def _rows(database: Database) -> dict[str, list[Any]]:
    with database.read() as session:
        return {
            table.name: [tuple(row) for row in session.execute(select(table).order_by(*table.primary_key))]
            for table in metadata.sorted_tables
        }


def _files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_restore__brings_back_all_that_was_destroyed(
    database: Database, empty: Database, lived: Path, tmp_path: Path
) -> None:
    token = admin_token(database)
    rows, files = _rows(database), _files(lived)
    made = backup.make(database, FolderStore(lived), tmp_path / "all.tar")
    assert (made.num_files, made.num_bytes) == (1, 4)
    shutil.rmtree(lived)
    backup.restore(empty, FolderStore(lived), tmp_path / "all.tar")
    assert _rows(empty) == rows
    assert _files(lived) == files
    with empty.read() as session:
        assert tokens.authenticate(session, token).principal.is_admin


def test_files__move_from_a_folder_into_a_bucket_and_back(
    database: Database, empty: Database, lived: Path, tmp_path: Path, bucket_place: StorePlace
) -> None:
    backup.make(database, FolderStore(lived), tmp_path / "folder.tar")
    bucket = bucket_place.open()
    backup.restore(empty, bucket, tmp_path / "folder.tar")
    made = backup.make(empty, bucket, tmp_path / "bucket.tar")
    assert (made.num_files, made.num_bytes) == (1, 4)
    with pytest.raises(BackupError, match=f"the database is not empty|{bucket_place.url} is not empty"):
        backup.restore(empty, bucket, tmp_path / "bucket.tar")
    with FolderStore(tmp_path / "again").filled() as put:
        for file in bucket.list():
            with bucket.open(file.name) as source:
                put(file.name, source)
    assert _files(tmp_path / "again") == _files(lived)


def test_secrets__are_kept_as_the_database_has_them(database: Database, lived: Path, tmp_path: Path) -> None:
    made = backup.make(database, FolderStore(lived), tmp_path / "all.tar")
    assert made.num_rows["secrets"] == 1
    assert SECRET.encode() not in (tmp_path / "all.tar").read_bytes()


def test_job_that_ran__goes_on_after_the_restore(
    database: Database, empty: Database, lived: Path, tmp_path: Path
) -> None:
    backup.make(database, FolderStore(lived), tmp_path / "all.tar")
    shutil.rmtree(lived)
    backup.restore(empty, FolderStore(lived), tmp_path / "all.tar")
    with empty.unit_of_work() as session:
        [job_id] = session.scalars(select(Job.id).where(Job.state == JobState.RUNNING))
        session.execute(update(Job).where(Job.id == job_id).values(lease_expires_at=db_now(-1)))
    assert [lease.job_id for lease in jobs.reap(empty)] == [job_id]
    with empty.unit_of_work() as session:
        session.execute(update(Job).where(Job.id == job_id).values(scheduled_at=db_now(-1)))
    assert jobs.claim(empty, job_id).attempt == 2  # its events are numbered on, and its checkpoint is there
    assert (JobFolder(lived, job_id).checkpoints / "step-10" / "rank-0.pt").read_bytes() == b"\0\1\2\3"


def test_rows_alone__leave_the_files_out(database: Database, empty: Database, lived: Path, tmp_path: Path) -> None:
    backup.make(database, FolderStore(lived), tmp_path / "rows.tar", with_files=False)
    shutil.rmtree(lived)
    backup.restore(empty, FolderStore(lived), tmp_path / "rows.tar")
    assert len(_rows(empty)["jobs"]) == 2
    assert _files(lived) == {}


def test_backup__is_private_and_replaces_the_one_before(database: Database, lived: Path, tmp_path: Path) -> None:
    for _ in range(2):
        backup.make(database, FolderStore(lived), tmp_path / "all.tar")
    assert (tmp_path / "all.tar").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "all.tar.partial").exists()


def test_restore__over_something_is_refused(database: Database, empty: Database, lived: Path, tmp_path: Path) -> None:
    backup.make(database, FolderStore(lived), tmp_path / "all.tar")
    with pytest.raises(BackupError, match=r"the database is not empty: \w+ has rows"):
        backup.restore(database, FolderStore(tmp_path / "none"), tmp_path / "all.tar")
    with pytest.raises(BackupError, match="is not empty; move it away"):
        backup.restore(empty, FolderStore(lived), tmp_path / "all.tar")


def test_restore__of_half_a_backup_leaves_nothing(
    database: Database, empty: Database, lived: Path, tmp_path: Path
) -> None:
    backup.make(database, FolderStore(lived), tmp_path / "all.tar")
    whole = (tmp_path / "all.tar").read_bytes()
    (tmp_path / "half.tar").write_bytes(whole[: len(whole) // 2])
    shutil.rmtree(lived)
    with pytest.raises(BackupError):
        backup.restore(empty, FolderStore(lived), tmp_path / "half.tar")
    assert not lived.exists()
    backup.restore(empty, FolderStore(lived), tmp_path / "all.tar")
    assert _files(lived)


def test_restore__of_another_release_says_which(
    database: Database, empty: Database, lived: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup.make(database, FolderStore(lived), tmp_path / "all.tar")
    newest = migrate.revisions()
    monkeypatch.setattr(migrate, "revisions", lambda: [*newest, "0123456789ab"])
    with pytest.raises(BackupError, match="restore it with that release, then upgrade"):
        backup.restore(empty, FolderStore(tmp_path / "none"), tmp_path / "all.tar")


def test_restore__of_something_else(empty: Database, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "other.tar", "w"):
        pass
    with pytest.raises(BackupError, match="no manifest"):
        backup.restore(empty, FolderStore(tmp_path / "none"), tmp_path / "other.tar")
    (tmp_path / "text").write_text("no tar at all")
    with pytest.raises(BackupError, match="can't be restored"):
        backup.restore(empty, FolderStore(tmp_path / "none"), tmp_path / "text")
