"""A runner's writing side: takes reports at any rate and stores them in few transactions, each fenced by the lease."""

import logging
import os
import queue as queues
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TypeVar

from sqlalchemy.orm import Session

from xsam.services import logs
from xsam.services.artifacts import service as artifacts
from xsam.services.db.session import AWAY, Database, refusal
from xsam.services.errors import LeaseLostError
from xsam.services.jobs import idle, queue
from xsam.services.jobs.queue import Lease
from xsam.services.metrics import service as metrics
from xsam.services.metrics.records import AlphaRecord, CheckpointRecord, EpochRecord, PlaneRecord
from xsam.workers.messages import FirstStep, GpuUse, ProgressRecord, Report, StartedRecord
from xsam.workers.runner.gpu_use import RunGpuUse

log = logging.getLogger(__name__)
_R = TypeVar("_R", bound=Report)

FLUSH_INTERVAL_S = 0.2
RETRY_INTERVAL_S = 0.5
_URGENT = (StartedRecord, FirstStep, threading.Event)
"""What is stored without waiting for others to come. An event is set when all reports before it are stored."""


class Recorder:
    """Stores what ranks report, from a thread of its own.

    A database that is away is waited for: reports stay in memory until it is back or the lease is lost.

    Args:
        database: the runner's own.
        lease: the attempt whose reports these are.
        checkpoint_names: returns which checkpoints of the job are there; None if that can't be told now.
        num_ranks: of the run.
        on_lost: called once, from the thread, when a write finds the lease gone.
        on_refused: called once, from the thread, with the reason why reports can't be stored at all; nothing is stored
            after that.
    """

    def __init__(
        self,
        database: Database,
        lease: Lease,
        checkpoint_names: Callable[[], Sequence[str] | None],
        *,
        num_ranks: int,
        on_lost: Callable[[], None],
        on_refused: Callable[[str], None],
    ) -> None:
        self._database = database
        self._checkpoint_names = checkpoint_names
        self._lease = lease
        self._gpu_use = RunGpuUse(num_ranks)
        self._log = logs.of_attempt(log, lease.job_id, lease.attempt)
        self._on_lost = on_lost
        self._on_refused = on_refused
        self._inbox: queues.SimpleQueue[Report | threading.Event | None] = queues.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def put(self, report: Report) -> None:
        """Take a report; returns at once."""
        self._inbox.put(report)

    def flush(self) -> None:
        """Wait until everything that was put so far is stored, or the lease is found lost."""
        stored = threading.Event()
        self._inbox.put(stored)
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
            try:
                self._store(self._told([one for one in batch if isinstance(one, Report)]))
                for stored in batch:
                    if isinstance(stored, threading.Event):
                        stored.set()
            except LeaseLostError:
                self._on_lost()
                return
            except Exception as e:  # the thread's boundary: reports must not be dropped in silence
                self._log.exception("reports can't be stored; the attempt ends")
                self._on_refused(refusal(e))
                return

    def _next_batch(self) -> list[Report | threading.Event | None]:
        batch = [self._inbox.get()]
        deadline = time.monotonic() + FLUSH_INTERVAL_S
        while batch[-1] is not None and not isinstance(batch[-1], _URGENT):
            try:
                batch.append(self._inbox.get(timeout=max(0.0, deadline - time.monotonic())))
            except queues.Empty:
                break
        return batch

    def _told(self, reports: Sequence[Report]) -> list[Report]:
        """Return the reports with what all ranks' GPUs do in the place of what each rank's do."""
        others = [one for one in reports if not isinstance(one, GpuUse)]
        uses = [self._gpu_use.put(use) for use in _only(GpuUse, reports)]
        return [*others, *(use for use in uses if use is not None)]

    def _store(self, reports: Sequence[Report]) -> None:
        has_checkpoints = any(isinstance(report, CheckpointRecord) for report in reports)
        kept = self._checkpoint_names() if has_checkpoints else None
        while reports:
            try:
                with self._database.unit_of_work() as session:
                    _write(session, self._lease, reports, kept)
                return
            except AWAY as e:
                self._log.warning("the database did not answer, trying again with %d reports: %s", len(reports), e)
                time.sleep(RETRY_INTERVAL_S)


def _write(session: Session, lease: Lease, reports: Sequence[Report], kept: Sequence[str] | None) -> None:
    for report in reports:
        if isinstance(report, StartedRecord):
            _write_start(session, lease, report)
        elif isinstance(report, FirstStep):
            queue.note_first_step(session, lease)
    metrics.write_epochs(session, lease, _only(EpochRecord, reports))
    metrics.write_alphas(session, lease, _only(AlphaRecord, reports))
    metrics.write_planes(session, lease, _only(PlaneRecord, reports))
    artifacts.write_checkpoints(session, lease, _only(CheckpointRecord, reports), kept=kept)
    for use in _only(GpuUse, reports)[-1:]:
        measured = {name: value for name, value in asdict(use).items() if name != "rank"}
        idle.note_use(session, lease, **measured)
    for progress in _only(ProgressRecord, reports)[-1:]:
        queue.merge_progress(session, lease, asdict(progress))


def _only(kind: type[_R], reports: Sequence[Report]) -> list[_R]:
    return [report for report in reports if isinstance(report, kind)]


def _write_start(session: Session, lease: Lease, started: StartedRecord) -> None:
    data = asdict(started)
    environment = data.pop("environment")
    processes = {"host": socket.gethostname(), "runner_pid": os.getpid(), "rank_pid": int(environment["pid"])}
    queue.note_start(session, lease, **data, environment=environment, processes=processes)
    metrics.rewind(session, lease, epoch=started.first_epoch - 1, step=started.first_step - 1)
