"""What a runner stores of what its ranks report, and when."""

import os
import re
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select

from tests.support import jobs
from xsam.services.db.session import Database
from xsam.services.jobs.models import Job, JobAttempt, JobEvent
from xsam.services.metrics import service as metrics
from xsam.services.metrics.records import EpochRecord
from xsam.workers.messages import FirstStep, GpuUse, ProgressRecord, Report, StartedRecord
from xsam.workers.runner.recorder import Recorder


def _no_end(*_: str) -> None:
    pytest.fail("the attempt was given up")


def _epoch(number: int) -> EpochRecord:
    return EpochRecord(number, number * 10, 1.0, 0.5, 1.0, 0.5, 0.1, 1.0, 100.0, number * 10, 0)


def _stored(database: Database, job_id: str) -> list[int]:
    with database.read() as session:
        return [row.epoch for row in metrics.list_epochs(session, job_id)]


def test_flush__returns_when_every_report_before_it_is_a_row(database: Database, tmp_path: Path) -> None:
    lease = jobs.submit_and_claim(database)
    recorder = Recorder(database, lease, list, num_ranks=1, on_lost=_no_end, on_refused=_no_end)
    for number in range(1, 6):
        recorder.put(_epoch(number))
        recorder.flush()
        assert _stored(database, lease.job_id) == list(range(1, number + 1))
    recorder.close()


def test_close__stores_what_is_left(database: Database, tmp_path: Path) -> None:
    lease = jobs.submit_and_claim(database)
    recorder = Recorder(database, lease, list, num_ranks=1, on_lost=_no_end, on_refused=_no_end)
    for number in range(1, 40):
        recorder.put(_epoch(number))
    recorder.close()
    assert _stored(database, lease.job_id) == list(range(1, 40))


def test_lost_lease__is_told_once_and_nothing_is_stored(database: Database, tmp_path: Path) -> None:
    lease = jobs.submit_and_claim(database)
    lost = threading.Event()
    recorder = Recorder(database, lease, list, num_ranks=1, on_lost=lost.set, on_refused=_no_end)
    jobs.let_lease_expire(database, lease.job_id)
    recorder.put(_epoch(1))
    recorder.flush()
    assert lost.is_set()
    recorder.close()
    assert _stored(database, lease.job_id) == []


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        (StartedRecord(10, 1, 1, num_parameters=5), "KeyError: 'pid'"),  # does not say which process it comes from
        (replace(_epoch(1), grad_evals=2**80), "int too large|out of range"),
    ],
)
def test_report_that_cannot_be_stored__is_told_with_its_reason_and_not_tried_again(
    database: Database, tmp_path: Path, report: Report, reason: str
) -> None:
    lease = jobs.submit_and_claim(database)
    told: list[str] = []
    recorder = Recorder(database, lease, list, num_ranks=1, on_lost=_no_end, on_refused=told.append)
    recorder.put(report)
    recorder.close()
    (why,) = told
    assert re.search(reason, why)


def test_start_first_step_and_position__are_noted_in_the_rows_of_the_job_and_its_attempt(
    database: Database, tmp_path: Path
) -> None:
    lease = jobs.submit_and_claim(database)
    recorder = Recorder(database, lease, list, num_ranks=1, on_lost=_no_end, on_refused=_no_end)
    recorder.put(StartedRecord(10, 21, 3, num_parameters=5, environment={"pid": "77"}))
    recorder.put(FirstStep())
    recorder.put(ProgressRecord(epoch=3, step=24, loss=0.5))
    recorder.put(ProgressRecord(epoch=3, step=25, loss=0.4))
    recorder.close()
    with database.read() as session:
        assert session.get_one(Job, lease.job_id).progress == {
            "epoch": 3,
            "step": 25,
            "loss": 0.4,
            "steps_per_epoch": 10,
        }
        attempt = session.scalars(select(JobAttempt).where(JobAttempt.job_id == lease.job_id)).one()
        assert attempt.environment == {"pid": "77"}
        assert attempt.first_step_at is not None
        told = session.scalars(
            select(JobEvent).where(JobEvent.job_id == lease.job_id, JobEvent.kind == "training")
        ).one()
    assert told.message == "attempt 1 trains from epoch 3, step 21"
    assert (told.data["num_parameters"], told.data["rank_pid"], told.data["runner_pid"]) == (5, 77, os.getpid())


def test_gpu_use__is_that_of_all_ranks_once_each_has_told(database: Database, tmp_path: Path) -> None:
    lease = jobs.submit_and_claim(database)
    recorder = Recorder(database, lease, tmp_path, num_ranks=2, on_lost=_no_end, on_refused=_no_end)
    busy = GpuUse(rank=1, utilization=0.06, busiest=0.12, used_bytes=3, total_bytes=8)
    quiet = GpuUse(rank=0, utilization=0.0, busiest=0.0, used_bytes=1, total_bytes=8)

    def told(*uses: GpuUse) -> Job:
        for use in uses:
            recorder.put(use)
        recorder.flush()
        return jobs.read(database, lease.job_id)

    alone = told(quiet, quiet)
    assert (alone.gpu_seen_at, alone.gpu_utilization) == (None, None), "of the other rank nothing is known"
    both = told(busy)
    assert (both.gpu_utilization, both.gpu_used_bytes, both.gpu_total_bytes) == (0.03, 4, 16)
    assert both.gpu_busy_at is not None, "one GPU of four that works is enough"
    later = told(quiet, replace(quiet, rank=1))
    assert (later.gpu_utilization, later.gpu_busy_at) == (0.0, both.gpu_busy_at)
    recorder.close()
