from pathlib import Path

from sqlalchemy import update

from tests.support import jobs
from xsam.services.artifacts import service as artifacts
from xsam.services.artifacts.store import JobFolder
from xsam.services.db.clock import db_now
from xsam.services.db.session import Database
from xsam.services.jobs import queue
from xsam.services.jobs.models import Job
from xsam.services.metrics.records import CheckpointRecord

RECORD = CheckpointRecord(epoch=1, step=10, name="step-10", size_bytes=1, sha256="ab" * 32, is_best=True)
DAY_S = 86_400


def _ended_job(database: Database, root: Path, *, days_ago: float) -> str:
    lease = jobs.submit_and_claim(database)
    checkpoint = JobFolder(root, lease.job_id).checkpoints / "step-10"
    checkpoint.mkdir(parents=True)
    weights = JobFolder(root, lease.job_id).path / "weights"
    weights.mkdir()
    (weights / "best.safetensors").write_bytes(b"w")
    with database.unit_of_work() as session:
        artifacts.write_checkpoints(session, lease, [RECORD], kept=["step-10"])
        queue.complete(session, lease, summary={})
        ended = update(Job).where(Job.id == lease.job_id).values(finished_at=db_now(-days_ago * DAY_S))
        session.execute(ended)
    return lease.job_id


def test_checkpoints_of_jobs_that_ended_long_ago__are_deleted_and_weights_stay(
    database: Database, tmp_path: Path
) -> None:
    old, new = (_ended_job(database, tmp_path, days_ago=days) for days in (31, 29))
    running = jobs.submit_and_claim(database)
    with database.unit_of_work() as session:
        artifacts.write_checkpoints(session, running, [RECORD], kept=["step-10"])
    with database.read() as session:
        assert artifacts.find_outdated(session, keep_days=30) == [old]
    with database.unit_of_work() as session:
        artifacts.forget(session, tmp_path, old)
    assert not JobFolder(tmp_path, old).checkpoints.exists()
    assert (JobFolder(tmp_path, old).path / "weights" / "best.safetensors").exists()
    assert JobFolder(tmp_path, new).checkpoints.exists()
    with database.read() as session:
        assert artifacts.find_outdated(session, keep_days=30) == []
        assert artifacts.list_checkpoints(session, old) == []
