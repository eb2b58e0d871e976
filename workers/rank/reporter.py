"""A rank's line to its runner: reports go out, the wish comes in. Runs in ranks; knows no SQL."""

import logging
import os
import threading
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError

from xsam.services.metrics.records import AlphaRecord, CheckpointRecord, EpochRecord
from xsam.workers.messages import Report

log = logging.getLogger("training")

WISH_INTERVAL_S = 0.25
MAX_UNACKNOWLEDGED = 200
STOP_EARLY = "cancel"
"""What the loop is told when the verdict is to stop: like a cancelled run, it leaves at its next step."""


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
        self._wish: str | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="wish", daemon=True)
        self._thread.start()

    def started(self, *, steps_per_epoch: int, first_step: int, first_epoch: int, num_parameters: int) -> None:
        """Report where this attempt begins, and wait until it is known."""
        payload = {
            "steps_per_epoch": steps_per_epoch,
            "first_step": first_step,
            "first_epoch": first_epoch,
            "num_parameters": num_parameters,
            "environment": self._environment,
        }
        log.info("training begins with step %d of epoch %d: %d parameters", first_step, first_epoch, num_parameters)
        self._send("started", payload)
        self._acknowledge()

    def first_step(self) -> None:
        """Report that the first step is done."""
        self._send("first_step", None)

    def progress(self, *, epoch: int, step: int, loss: float) -> None:
        """Report the position inside an epoch."""
        self._send("progress", {"step": step, "loss": loss, "epoch": epoch})

    def epoch(self, record: EpochRecord) -> None:
        """Report a finished epoch, and write it to the log.

        Where the run is judged, wait for the verdict, so that no step is taken in vain.
        """
        log.info(
            "epoch %d: loss %.4f, accuracy %.2f %%; evaluation: loss %.4f, accuracy %.2f %%; %.1f s",
            record.epoch,
            record.train_loss,
            100 * record.train_accuracy,
            record.eval_loss,
            100 * record.eval_accuracy,
            record.epoch_s,
        )
        self._send("epoch", record)
        if record.epoch <= self._num_judged:
            self._acknowledge()
            self._is_stopped_early = self._ask_verdict(record.epoch)

    def alpha(self, record: AlphaRecord) -> None:
        """Report an alpha estimate."""
        log.info("step %d: alpha* %.3f at an angle of %.3f rad", record.step, record.alpha, record.angle_rad)
        self._send("alpha", record)

    def checkpoint(self, record: CheckpointRecord) -> None:
        """Report a complete checkpoint."""
        log.info("checkpoint %s, %d bytes", record.name, record.size_bytes)
        self._send("checkpoint", record)

    def wish(self) -> str | None:
        """Return what somebody wants of the job, as last heard."""
        return STOP_EARLY if self._is_stopped_early else self._wish

    def may_publish(self) -> bool:
        """Ask whether this attempt still owns the job; called before a checkpoint is put in place.

        The answer comes when every report so far is a row: a run never goes on from a point that rows have not reached.
        """
        self._acknowledge()
        try:
            return bool(ray.get(self._runner.may_publish.remote(*self._run)))
        except RayError:
            _end_process()
            raise

    def close(self) -> None:
        """Wait until every report has been taken, and stop watching."""
        self._acknowledge()
        self._closed.set()

    def _send(self, kind: str, payload: Any) -> None:
        self._unacknowledged.append(self._runner.record.remote(*self._run, Report(kind, payload)))
        if len(self._unacknowledged) >= MAX_UNACKNOWLEDGED:
            self._acknowledge()

    def _acknowledge(self) -> None:
        try:
            ray.get(self._unacknowledged)
        except RayError:
            _end_process()
        self._unacknowledged.clear()

    def _ask_verdict(self, epoch: int) -> bool:
        try:
            return bool(ray.get(self._runner.verdict.remote(*self._run, epoch)))
        except RayError:
            _end_process()
            raise

    def _watch(self) -> None:
        while not self._closed.wait(WISH_INTERVAL_S):
            try:
                self._wish = ray.get(self._runner.wish.remote(*self._run))
            except RayError:
                if not self._closed.is_set():
                    _end_process()


def _end_process() -> None:
    os._exit(70)
