"""Trackers of an attempt: told what the rows are told, from a thread of their own, never waited for."""

import logging
import queue as queues
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from xsam.services.metrics.records import AlphaRecord, EpochRecord
from xsam.services.settings import TrackerSettings
from xsam.workers.messages import Report, StartedRecord
from xsam.workers.runner.trackers.mlflow import MlflowSink
from xsam.workers.runner.trackers.sink import Ended, Sink, TrackedRun, of_alpha, of_epoch
from xsam.workers.runner.trackers.tensorboard import TensorBoardSink
from xsam.workers.runner.trackers.wandb import WandbSink

log = logging.getLogger(__name__)

MAX_WAITING = 1000
"""Reports that wait for a slow tracker; further ones are dropped. Rows have them all."""
CLOSE_S = 2.0
"""The end of a job waits so long for its trackers; they go on in their thread after that."""
MakeSink = Callable[[TrackedRun], Sink]


def sinks_of(settings: TrackerSettings) -> dict[str, MakeSink]:
    """Return how to make the sinks that an operator wants, by their names."""
    found: dict[str, MakeSink] = {}
    if settings.tensorboard:
        found["TensorBoard"] = TensorBoardSink
    if settings.mlflow_uri is not None:
        found["MLflow"] = partial(MlflowSink, uri=settings.mlflow_uri, experiment=settings.mlflow_experiment)
    if settings.wandb != "off":
        found["W&B"] = partial(WandbSink, mode=settings.wandb, project=settings.wandb_project)
    return found


@dataclass(frozen=True, slots=True)
class _Metrics:
    values: Mapping[str, float]
    step: int


class Trackers:
    """An attempt's trackers. `put` and `close` are called by the runner and never raise.

    Args:
        run: the attempt; its first step is told by the ranks.
        makers: how to make the sinks, by name; the thread makes them when training has begun.
    """

    def __init__(self, run: Callable[[int], TrackedRun], makers: Mapping[str, MakeSink]) -> None:
        self._run = run
        self._makers = makers
        self._inbox: queues.Queue[Report | Ended] = queues.Queue(MAX_WAITING)
        self._sinks: dict[str, Sink] = {}
        self._is_full = False
        self._thread: threading.Thread | None = None

    def put(self, report: Report) -> None:
        """Take a report; returns at once, whatever the trackers do."""
        if not self._makers or not isinstance(report, StartedRecord | EpochRecord | AlphaRecord):
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._tell, name="trackers", daemon=True)
            self._thread.start()
        try:
            self._inbox.put_nowait(report)
        except queues.Full:
            if not self._is_full:
                self._is_full = True
                log.warning("trackers are %d reports behind and miss what follows; rows have all of it", MAX_WAITING)

    def close(self, ended: Ended) -> None:
        """Let the trackers end; waits a moment for them."""
        if self._thread is None:
            return
        try:
            self._inbox.put(ended, timeout=CLOSE_S)
        except queues.Full:
            log.warning("trackers do not take the end of the attempt; their runs stay open")
            return
        self._thread.join(CLOSE_S)

    def _tell(self) -> None:
        while True:
            match self._inbox.get():
                case StartedRecord(first_step=first_step):
                    self._make(first_step)
                case EpochRecord() as record:
                    self._each(_Metrics(of_epoch(record), record.step))
                case AlphaRecord() as record:
                    self._each(_Metrics(of_alpha(record), record.step))
                case Ended() as ended:
                    self._each(ended)
                    return

    def _make(self, first_step: int) -> None:
        if self._sinks:
            return
        run = self._run(first_step)
        for name, make in self._makers.items():
            try:
                self._sinks[name] = make(run)
            except Exception:  # whatever a tracker's package raises: the job goes on without it
                log.exception("%s can't be told of job %s; rows have everything", name, run.job_id)

    def _each(self, told: _Metrics | Ended) -> None:
        for name, sink in list(self._sinks.items()):
            try:
                if isinstance(told, Ended):
                    sink.end(told)
                else:
                    sink.metrics(told.values, told.step)
            except Exception:  # as above
                log.exception("%s is told no more of this job; rows have everything", name)
                del self._sinks[name]
