"""Runs of the lab for tests, taken from stage to stage by hand."""

from xsam.services.artifacts import service as artifacts
from xsam.services.db.session import Database
from xsam.services.jobs import queue
from xsam.services.jobs import service as jobs
from xsam.services.lab import advance, service
from xsam.services.lab.spec import LabSpec
from xsam.services.metrics.records import CheckpointRecord
from xsam.services.settings import NO_CODE
from xsam.services.specs.job import JobSpec
from xsam.services.teams.roles import Actor

CHECKPOINT = CheckpointRecord(epoch=1, step=22, name="step-000000022", size_bytes=1, sha256="0" * 64, is_best=True)

QUALITY = {
    "rows": [
        {"start": start, "x": 0.0, "y": 0.0, "ascent_steps": k, "alpha": 1.0}
        | {"gradient": 1.0 - 0.1 * k - 0.001 * start * k, "displacement": 0.5, "chosen": 1.0}
        for start in range(5)
        for k in (1, 2, 3, 5, 7, 10)
    ]
}
"""What the computation of figure 1b finds where g_k gets worse with each step."""


def with_checkpoint(database: Database, actor: Actor) -> str:
    """Return a job of which a checkpoint is stored."""
    with database.unit_of_work() as session:
        job_id = jobs.submit(session, JobSpec(), actor=actor)[0].id
    with database.unit_of_work() as session:
        claimed = queue.claim(session, job_id, runner="runner-1", lease_s=60)
        assert claimed is not None
        artifacts.write_checkpoints(session, claimed.lease, [CHECKPOINT], kept=[CHECKPOINT.name])
    return job_id


def concluded(database: Database, actor: Actor) -> str:
    """Return a run of figure 1b that has come to its verdict."""
    with database.unit_of_work() as session:
        run_id = service.submit(session, LabSpec(figure="1b"), actor=actor)[0].id
    with database.unit_of_work() as session:
        advance.take_computed(session, run_id, "quality", QUALITY)
        advance.advance(session, run_id, allowed=NO_CODE)
    return run_id
