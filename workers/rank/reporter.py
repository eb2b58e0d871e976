"""How a rank tells its runner what happens and hears when to stop. Runs in ranks; knows no SQL."""

import logging
import os
import threading
from dataclasses import replace
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError

from xsam.services.metrics.records import AlphaRecord, CheckpointRecord, EpochRecord, PlaneRecord
from xsam.workers.messages import Report, StartedRecord, StopReason

log = logging.getLogger("training")

WISH_INTERVAL_S = 0.25
MAX_UNACKNOWLEDGED = 200


class RunnerReporter:
    """Telemetry and Control over a Ray actor handle, for rank 0.

    Reports are sent at once, in order, without waiting; `close` waits until the runner has taken all of them. When the
    runner is gone the rank ends its process: nobody is left who could store what it computes.

    Args:
        runner: handle of the JobRunner.
        job_id: the job that this rank works for.
        attempt: its attempt.
        environment: versions and hardware of this process.
        num_judged: epochs after which the runner is asked whether to go on; 0 where nobody judges the run.
    """

    def __init__(
        self, runner: ActorHandle, job_id: str, attempt: int, environment: dict[str, str], *, num_judged: int = 0
    ) -> None:
        self._runner = runner
        self._environment = environment
        self._run = (job_id, attempt)
        self._num_judged = num_judged
        self._is_stopped_early = False
        self._unacknowledged: list[Any] = []
        self._acknowledging = threading.RLock()
        """Checkpoints that are being uploaded ask from a thread of their own."""
        self._wish: StopReason | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="wish", daemon=True)
        self._thread.start()

    def report(self, report: Report) -> None:
        """Send a report and write the notable ones to the log.

        The start is waited for until it is known. So is the verdict on an epoch where the run is judged: no step is
        taken in vain.
        """
        _log(report)
        if isinstance(report, StartedRecord):
            report = replace(report, environment=self._environment)
        with self._acknowledging:
            self._unacknowledged.append(self._runner.record.remote(*self._run, report))
        if isinstance(report, StartedRecord) or len(self._unacknowledged) >= MAX_UNACKNOWLEDGED:
            self._acknowledge()
        if isinstance(report, EpochRecord) and report.epoch <= self._num_judged:
            self._acknowledge()
            self._is_stopped_early = bool(self._ask("verdict", report.epoch))

    def stop_reason(self) -> StopReason | None:
        """Return why the run should stop, as last heard."""
        return StopReason.EARLY if self._is_stopped_early else self._wish

    def may_publish(self) -> bool:
        """Ask whether this attempt still owns the job; called before a checkpoint is put in place.

        The answer comes when every report so far is a row: a run never goes on from a point that rows have not reached.
        """
        self._acknowledge()
        return bool(self._ask("may_publish"))

    def close(self) -> None:
        """Wait until every report has been taken, and stop watching."""
        self._acknowledge()
        self._closed.set()

    def _acknowledge(self) -> None:
        with self._acknowledging:
            try:
                ray.get(self._unacknowledged)
            except RayError:
                _end_process()
            self._unacknowledged.clear()

    def _ask(self, method: str, *values: int) -> Any:
        try:
            return ray.get(getattr(self._runner, method).remote(*self._run, *values))
        except RayError:
            _end_process()
            raise

    def _watch(self) -> None:
        while not self._closed.wait(WISH_INTERVAL_S):
            try:
                wish = ray.get(self._runner.wish.remote(*self._run))
            except RayError:
                if not self._closed.is_set():
                    _end_process()
            else:
                self._wish = None if wish is None else StopReason(wish)


def _log(report: Report) -> None:
    match report:
        case StartedRecord(first_step=step, first_epoch=epoch, num_parameters=num):
            log.info("training begins with step %d of epoch %d: %d parameters", step, epoch, num)
        case EpochRecord():
            log.info(
                "epoch %d: loss %.4f%s; evaluation: loss %.4f%s%s; %.1f s",
                report.epoch,
                report.train_loss,
                _accuracy(report.train_accuracy),
                report.eval_loss,
                _accuracy(report.eval_accuracy),
                "".join(f", {name} {value:.4g}" for name, value in report.metrics.items()),
                report.epoch_s,
            )
        case AlphaRecord(step=step, alpha=alpha, angle_rad=angle):
            log.info("step %d: alpha* %.3f at an angle of %.3f rad", step, alpha, angle)
        case PlaneRecord(checkpoint=name, losses=rows, found=found) if found is not None:
            log.info("loss around %s: %d x %d points", name, len(rows), len(rows))
        case CheckpointRecord(name=name, size_bytes=size):
            log.info("checkpoint %s, %d bytes", name, size)


def _accuracy(share: float | None) -> str:
    return "" if share is None else f", accuracy {100 * share:.2f} %"


def _end_process() -> None:
    os._exit(70)
