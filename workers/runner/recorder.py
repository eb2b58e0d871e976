"""A runner's writing side: takes reports at any rate and stores them in few transactions, each fenced by the lease."""

import logging
import os
import queue as queues
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from xsam.services.artifacts import service as artifacts
from xsam.services.db.clock import db_now
from xsam.services.db.session import Database
from xsam.services.errors import LeaseLostError
from xsam.services.jobs import events, queue
from xsam.services.jobs.models import JobAttempt
from xsam.services.jobs.queue import Lease
from xsam.services.metrics import service as metrics
from xsam.workers.messages import Report

log = logging.getLogger(__name__)

FLUSH_INTERVAL_S = 0.2
RETRY_INTERVAL_S = 0.5
FLUSH = "flush"
"""Kind of a report whose payload is an event, set when all reports before it are stored."""
_URGENT = frozenset({"started", "first_step", FLUSH})
"""Reports that are stored without waiting for others to come."""


class Recorder:
    """Stores what ranks report, from a thread of its own.

    A database that is away is waited for: reports stay in memory until it is back or the lease is lost.

    Args:
        database: the runner's own.
        lease: the attempt whose reports these are.
        checkpoint_dir: where the job's checkpoints lie.
        on_lost: called once, from the thread, when a write finds the lease gone.
    """

    def __init__(self, database: Database, lease: Lease, checkpoint_dir: Path, on_lost: Callable[[], None]) -> None:
        self._database = database
        self._checkpoint_dir = checkpoint_dir
        self._lease = lease
        self._on_lost = on_lost
        self._inbox: queues.SimpleQueue[Report | None] = queues.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def put(self, report: Report) -> None:
        """Take a report; returns at once."""
        self._inbox.put(report)

    def flush(self) -> None:
        """Wait until everything that was put so far is stored, or the lease is found lost."""
        stored = threading.Event()
        self._inbox.put(Report(FLUSH, stored))
        while self._thread.is_alive() and not stored.wait(RETRY_INTERVAL_S):
            pass

    def close(self) -> None:
        """Store everything that was put so far and stop."""
        self._inbox.put(None)
        self._thread.join()

    def _run(self) -> None:
        is_open = True
        while is_open:
            batch = self._next_batch()
            is_open = None not in batch
            reports = [report for report in batch if report is not None]
            try:
                self._store(reports)
                _tell_stored(reports)
            except LeaseLostError:
                self._on_lost()
                return
            except Exception:  # the thread's boundary: rows that can't be stored must not be dropped in silence
                log.exception("reports of job %s could not be stored; the attempt is given up", self._lease.job_id)
                self._on_lost()
                return

    def _next_batch(self) -> list[Report | None]:
        batch = [self._inbox.get()]
        deadline = time.monotonic() + FLUSH_INTERVAL_S
        while batch[-1] is not None and batch[-1].kind not in _URGENT:
            try:
                batch.append(self._inbox.get(timeout=max(0.0, deadline - time.monotonic())))
            except queues.Empty:
                break
        return batch

    def _store(self, reports: Sequence[Report]) -> None:
        while reports:
            try:
                with self._database.unit_of_work() as session:
                    _write(session, self._lease, reports, self._checkpoint_dir)
                return
            except DBAPIError as e:
                log.warning("the database refused %d reports, trying again: %s", len(reports), e)
                time.sleep(RETRY_INTERVAL_S)


def _tell_stored(reports: Sequence[Report]) -> None:
    for report in reports:
        if report.kind == FLUSH:
            report.payload.set()


def _write(session: Session, lease: Lease, reports: Sequence[Report], checkpoint_dir: Path) -> None:
    by_kind: dict[str, list[Any]] = {}
    for report in reports:
        by_kind.setdefault(report.kind, []).append(report.payload)
    for started in by_kind.get("started", ()):
        _write_start(session, lease, started)
    for _ in by_kind.get("first_step", ()):
        _write_first_step(session, lease)
    metrics.write_epochs(session, lease, by_kind.get("epoch", ()))
    metrics.write_alphas(session, lease, by_kind.get("alpha", ()))
    kept = [path.name for path in checkpoint_dir.glob("step-*")]
    artifacts.write_checkpoints(session, lease, by_kind.get("checkpoint", ()), kept=kept)
    for progress in by_kind.get("progress", ())[-1:]:
        queue.merge_progress(session, lease, progress)


def _write_start(session: Session, lease: Lease, started: dict[str, Any]) -> None:
    first_step, first_epoch = started["first_step"], started["first_epoch"]
    attempt = (JobAttempt.job_id == lease.job_id, JobAttempt.number == lease.attempt)
    session.execute(update(JobAttempt).where(*attempt).values(environment=started["environment"]))
    metrics.rewind(session, lease, epoch=first_epoch - 1, step=first_step - 1)
    position = {"step": first_step - 1, "epoch": first_epoch, "steps_per_epoch": started["steps_per_epoch"]}
    queue.merge_progress(session, lease, position)
    where = "from the start" if first_step == 1 else f"from epoch {first_epoch}, step {first_step}"
    data = {name: value for name, value in started.items() if name != "environment"}
    data |= {"host": socket.gethostname(), "runner_pid": os.getpid(), "rank_pid": int(started["environment"]["pid"])}
    events.record(session, lease.job_id, "training", f"attempt {lease.attempt} trains {where}", data=data)


def _write_first_step(session: Session, lease: Lease) -> None:
    queue.touch(session, lease)
    attempt = (JobAttempt.job_id == lease.job_id, JobAttempt.number == lease.attempt)
    session.execute(update(JobAttempt).where(*attempt).values(first_step_at=db_now()))
