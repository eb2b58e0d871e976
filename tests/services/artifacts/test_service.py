from dataclasses import replace

import pytest

from tests.support import jobs
from xsam.services.artifacts import service as artifacts
from xsam.services.db.session import Database
from xsam.services.errors import LeaseLostError
from xsam.services.metrics.records import CheckpointRecord

FIRST = CheckpointRecord(epoch=1, step=10, name="step-10", size_bytes=2**40, sha256="ab" * 32, is_best=True)


def _names(database: Database, job_id: str) -> list[str]:
    with database.read() as session:
        return [row.name for row in artifacts.list_checkpoints(session, job_id)]


def test_write_checkpoints__stores_and_replaces_by_name(database: Database) -> None:
    lease = jobs.submit_and_claim(database)
    second = replace(FIRST, name="step-20", step=20)
    with database.unit_of_work() as session:
        artifacts.write_checkpoints(session, lease, [second, FIRST], kept=["step-10", "step-20"])
        artifacts.write_checkpoints(session, lease, [replace(FIRST, is_best=False)], kept=["step-10", "step-20"])
    assert _names(database, lease.job_id) == ["step-10", "step-20"]
    with database.read() as session:
        first = artifacts.list_checkpoints(session, lease.job_id)[0]
    assert (first.is_best, first.size_bytes) == (False, 2**40)


def test_write_checkpoints__drops_rows_of_pruned_ones(database: Database) -> None:
    lease = jobs.submit_and_claim(database)
    with database.unit_of_work() as session:
        artifacts.write_checkpoints(session, lease, [FIRST], kept=["step-10"])
        artifacts.write_checkpoints(session, lease, [replace(FIRST, name="step-20", step=20)], kept=["step-20"])
    assert _names(database, lease.job_id) == ["step-20"]


def test_writes__without_the_lease_are_refused(database: Database) -> None:
    lease = jobs.submit_and_claim(database)
    with database.unit_of_work() as session:
        artifacts.write_checkpoints(session, lease, [FIRST], kept=["step-10"])
    jobs.let_lease_expire(database, lease.job_id)
    with pytest.raises(LeaseLostError), database.unit_of_work() as session:
        artifacts.write_checkpoints(session, lease, [replace(FIRST, name="late")], kept=["late"])
    assert _names(database, lease.job_id) == ["step-10"]
