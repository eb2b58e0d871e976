"""Moves a job through its states as a runner does, by the queue's own functions, without training anything."""

from collections.abc import Sequence

from xsam.services.artifacts.logs import LogWriter
from xsam.services.artifacts.store import JobFolder
from xsam.services.db.session import Database
from xsam.services.jobs import queue
from xsam.services.jobs.queue import Lease
from xsam.services.jobs.retry import RetryDecision
from xsam.services.jobs.states import FailureKind
from xsam.services.metrics import service as metrics
from xsam.services.metrics.records import AlphaRecord, EpochRecord
from xsam.services.settings import Settings

STEPS_PER_EPOCH = 10
SUMMARY = {
    "epochs": 2,
    "step": 20,
    "best_epoch": 2,
    "best_accuracy": 0.9,
    "final_accuracy": 0.9,
    "final_eval_loss": 0.4,
    "train_s": 3.5,
    "grad_evals": 40,
    "probe_forwards": 42,
    "mean_alpha": 1.2,
}


class RowRunner:
    """A runner without a network: what it reports is made up, how it reports is real."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings

    def claim(self, job_id: str, *, placement: Sequence[str] = ()) -> Lease:
        with self._database.unit_of_work() as session:
            claimed = queue.claim(session, job_id, runner="row-runner", lease_s=60, placement=placement)
        assert claimed is not None, f"{job_id} was not due"
        return claimed.lease

    def report(self, lease: Lease, *epochs: int) -> None:
        with self._database.unit_of_work() as session:
            metrics.write_epochs(session, lease, [epoch_record(epoch) for epoch in epochs])
            metrics.write_alphas(session, lease, [alpha_record(epoch) for epoch in epochs])

    def write_log(self, lease: Lease, text: str, rank: int = 0) -> None:
        writer = LogWriter(JobFolder(self._settings.artifact_root, lease.job_id).logs(lease.attempt), rank)
        writer.write(text)
        writer.close()

    def complete(self, lease: Lease) -> None:
        with self._database.unit_of_work() as session:
            queue.complete(session, lease, summary=SUMMARY)

    def fail(self, lease: Lease, message: str = "out of luck", *, is_retry: bool = False) -> None:
        decision = RetryDecision(is_retry, 0.0, "as the test wants it")
        with self._database.unit_of_work() as session:
            queue.fail(session, lease, kind=FailureKind.USER, message=message, decision=decision)

    def honour_cancel(self, lease: Lease) -> None:
        with self._database.unit_of_work() as session:
            queue.finish_cancelled(session, lease)

    def run(self, job_id: str, num_epochs: int = 2) -> Lease:
        lease = self.claim(job_id)
        self.report(lease, *range(1, num_epochs + 1))
        self.complete(lease)
        return lease


def epoch_record(epoch: int) -> EpochRecord:
    return EpochRecord(
        epoch=epoch,
        step=epoch * STEPS_PER_EPOCH,
        train_loss=1.0 / epoch,
        train_accuracy=0.5,
        eval_loss=1.5 / epoch,
        eval_accuracy=1 - 0.5 / epoch,
        lr=0.05,
        epoch_s=2.0,
        samples_per_s=1234.5,
        grad_evals=2 * epoch * STEPS_PER_EPOCH,
        probe_forwards=21 * epoch,
    )


def alpha_record(epoch: int) -> AlphaRecord:
    return AlphaRecord(
        epoch=epoch,
        step=(epoch - 1) * STEPS_PER_EPOCH + 1,
        alpha=1.0 + epoch / 10,
        angle_rad=0.7,
        alphas=(0.0, 1.0, 2.0),
        losses=(1.0, 1.2, 1.1),
    )
