"""The training loop: one function for one rank or many, on CPU or GPU, alone, under Ray Train or in a trial."""

import math
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from xsam.services.jobs.summary import TrainingSummary
from xsam.services.metrics.records import EpochRecord
from xsam.services.specs.job import JobSpec
from xsam.services.specs.optimizer import XsamVariant
from xsam.workers.messages import FirstStep, RankContext, StartedRecord, StopReason
from xsam.workers.training.build import build_parts
from xsam.workers.training.checkpoints.store import CheckpointStore
from xsam.workers.training.data.lookahead import Lookahead
from xsam.workers.training.errors import CheckpointError, DivergenceError, TargetError
from xsam.workers.training.evaluation import Measured, evaluate
from xsam.workers.training.memory import named_memory_errors
from xsam.workers.training.optimizers import is_search_step, num_search_batches, read_alpha
from xsam.workers.training.progress import EpochLosses, Progress
from xsam.workers.training.ranks import Ranks
from xsam.workers.training.stepping import Stepper
from xsam.workers.training.stopping import StopSignal
from xsam.workers.training.telemetry import Control, ProgressThrottle, SilentTelemetry, Telemetry
from xsam_core.errors import NonFiniteError

CHEAP_CHECKPOINT_PARAMETERS = 20_000_000
"""A cancelled run saves where it was if that takes well under a second; a larger model is not waited for."""
OWN_FIELDS = frozenset({"loss", "accuracy"})
"""Values for which an epoch's record has fields."""


@dataclass(frozen=True, slots=True)
class TrainingOutcome:
    """How a run ended: through all its epochs (`stopped_by` None), or or why it stopped before."""

    summary: TrainingSummary
    stopped_by: StopReason | None


def run_training(spec: JobSpec, context: RankContext, telemetry: Telemetry, control: Control) -> TrainingOutcome:
    """Train a job to its end or until something stops it, from its newest checkpoint if there is one.

    Call it on every rank. `telemetry` and `control` are used on rank 0 only; every rank returns the same. torch's
    thread count, the global random states and, on CUDA, cuDNN's flags are set for the whole process.

    Raises:
        UserSpecError: the job asks for something that can't be had (DatasetMissingError, TargetError, ...).
        DivergenceError: a loss or gradient is not finite or has exploded.
        OutOfMemoryError: the device's or the machine's memory is full.
        CheckpointError: a checkpoint can't be written or read, or belongs to another job.
    """
    progress = Progress()

    def describe() -> str:
        return (
            f"out of memory on {context.device} in {progress.position()}: each of {context.world_size} workers holds "
            f"{spec.batch_size // context.world_size} of batch_size {spec.batch_size} examples at once; "
            "use a smaller batch_size, more recipe.micro_batches or workers, precision bf16 or a smaller model"
        )

    with named_memory_errors(describe):
        return _Run(spec, context, progress, telemetry, control).train()


class _Run:
    """One rank's run: the order of things. What the things are is built in `build`."""

    def __init__(
        self, spec: JobSpec, context: RankContext, progress: Progress, telemetry: Telemetry, control: Control
    ) -> None:
        self._spec = spec
        self._context = context
        self._progress = progress
        self._ranks = Ranks(context)
        self._telemetry = telemetry if self._ranks.is_first else SilentTelemetry()
        self._throttle = ProgressThrottle(self._telemetry, is_silent=not self._ranks.is_first)
        self._parts = build_parts(spec, context, self._ranks)
        self._steps_per_epoch = self._parts.train_feed.steps_per_epoch
        self._goal = self._parts.task.goal
        limit = self._parts.task.loss_limit
        self._losses = EpochLosses(self._steps_per_epoch, context.device, limit=limit)
        self._train_signal = StopSignal(self._ranks, control, self._losses.first_bad)
        self._eval_signal = StopSignal(self._ranks, control, lambda: 0)
        self._stepper = Stepper(spec, self._parts, context.device)
        self._store = CheckpointStore(spec, context, self._ranks, self._parts, control.may_publish)
        self._store.restore(progress, self._losses)
        self._num_parameters = sum(p.numel() for p in self._parts.model.parameters())
        self._saved_step = progress.step
        self._is_first_step = True

    def train(self) -> TrainingOutcome:
        """Run the epochs that are left."""
        try:
            outcome = self._train()
        except Exception:
            # What is on its way to the bucket is what the next attempt goes on from.
            with suppress(CheckpointError):
                self._report_uploaded(is_end=True)
            raise
        self._report_uploaded(is_end=True)
        return outcome

    def _train(self) -> TrainingOutcome:
        progress = self._progress
        self._telemetry.report(
            StartedRecord(self._steps_per_epoch, progress.step + 1, progress.epochs_done + 1, self._num_parameters)
        )
        while progress.epochs_done < self._spec.epochs:
            reason = self._train_rest_of_epoch()
            is_epoch_trained = progress.step_in_epoch == self._steps_per_epoch
            if reason is None or (is_epoch_trained and not reason.is_final):
                reason = self._finish_epoch() or reason
            if reason is not None:
                self._save_where_stopped(reason)
                return self._outcome(reason)
        return self._outcome(None)

    def _train_rest_of_epoch(self) -> StopReason | None:
        """Train up to the end of the epoch; return the reason to stop that came, if one did."""
        progress = self._progress
        self._parts.task.on_epoch(self._parts.model, progress.epochs_done + 1)
        self._parts.train_mode()
        self._losses.restart(progress.step_in_epoch)
        self._train_signal.start()
        started_at = time.perf_counter() - progress.epoch_train_s
        coming = Lookahead(self._parts.train_feed.batches(progress.epochs_done, progress.step_in_epoch))
        for batch in self._timed(coming):
            self._step(batch, coming)
            progress.epoch_train_s = time.perf_counter() - started_at
            reason, bad_step = self._train_signal.check()
            if bad_step:
                self._raise_diverged(bad_step)
            if reason is not None:
                return reason
            self._report_uploaded()
            self._save_if_due()
        self._train_signal.pause()
        return None

    def _timed(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Yield the batches, noting how long each was waited for."""
        while True:
            asked_at = time.perf_counter()
            batch = next(batches, None)
            self._progress.data_wait_s += time.perf_counter() - asked_at
            if batch is None:
                return
            yield batch

    def _step(self, batch: Any, coming: Lookahead) -> None:
        progress, spec = self._progress, self._spec
        self._set_lr()
        searches = progress.is_search_due or is_search_step(
            spec.optimizer, step=progress.step, step_in_epoch=progress.step_in_epoch
        )
        next_batches = coming.next_ones(num_search_batches(spec.optimizer) - 1) if searches else []
        try:
            stepped = self._stepper.step(batch, number=progress.step, search_alpha=searches, next_batches=next_batches)
        except NonFiniteError as e:
            raise DivergenceError(f"training diverged in {progress.position()}: {e}") from e
        self._losses.record(stepped.loss, stepped.values)
        progress.take_step(spec.optimizer.grad_evals_per_step)
        progress.is_search_due = searches and stepped.is_skipped
        if searches and not stepped.is_skipped:
            self._take_alpha(1 + len(next_batches))
        self._report_step()

    def _set_lr(self) -> None:
        progress, spec = self._progress, self._spec
        epoch = progress.epochs_done + progress.step_in_epoch / self._steps_per_epoch
        lr = spec.optimizer.base.lr * spec.schedule.factor(epoch, spec.epochs)
        for group in self._parts.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)

    def _take_alpha(self, num_batches: int) -> None:
        progress = self._progress
        record = read_alpha(self._parts.optimizer, epoch=progress.epochs_done + 1, step=progress.step)
        progress.take_alpha(record, num_batches=num_batches)
        self._telemetry.report(record)

    def _report_step(self) -> None:
        if self._is_first_step:
            self._is_first_step = False
            self._telemetry.report(FirstStep())
        self._throttle.report(
            epoch=self._progress.epochs_done + 1,
            step=self._progress.step,
            read_loss=self._losses.mean_since_report,
        )

    def _finish_epoch(self) -> StopReason | None:
        """Evaluate, report and save; return the final reason to stop that came first, if one did."""
        progress = self._progress
        self._raise_if_diverged()
        started_at = time.perf_counter()
        # Each rank has averaged over its own batches; evaluation takes rank 0's, as DDP does.
        model = self._parts.evaluated
        self._ranks.copy_from_first(model.buffers())
        task, feeds = self._parts.task, self._parts.eval_feeds
        result = evaluate(model, task, feeds, self._ranks, self._eval_signal, self._stepper.autocast)
        if isinstance(result, StopReason):
            return result
        if not math.isfinite(result["loss"]):
            raise DivergenceError(f"evaluation after epoch {progress.epochs_done + 1}: the loss is {result['loss']:g}")
        record = self._epoch_record(self._train_values(), result, started_at)
        if progress.finish_epoch(record, self._goal):
            self._store.keep_best_weights()
        self._telemetry.report(record)
        self._save_if_due(score=self._goal.score(progress.final_value))
        return None

    def _train_values(self) -> Measured:
        """Return the epoch's loss and what else its steps have measured, over all ranks."""
        named = self._losses.sums()
        flat = [part for value in named.values() for part in value]
        loss_sum, *sums = self._ranks.sums(self._losses.total(), *flat)
        pairs = zip(named, sums[::2], sums[1::2], strict=True)
        found = {name: total / weight for name, total, weight in pairs if weight}
        return {**found, "loss": loss_sum / (self._steps_per_epoch * self._context.world_size)}

    def _epoch_record(self, trained: Measured, evaluated: Measured, started_at: float) -> EpochRecord:
        progress = self._progress
        num_examples = self._steps_per_epoch * self._spec.batch_size
        metrics = {name: value for name, value in evaluated.items() if name not in OWN_FIELDS}
        metrics |= {f"train/{name}": value for name, value in trained.items() if name not in OWN_FIELDS}
        record = EpochRecord(
            epoch=progress.epochs_done + 1,
            step=progress.step,
            train_loss=trained["loss"],
            train_accuracy=trained.get("accuracy"),
            eval_loss=evaluated["loss"],
            eval_accuracy=evaluated.get("accuracy"),
            lr=self._parts.optimizer.param_groups[0]["lr"],
            epoch_s=progress.epoch_train_s + time.perf_counter() - started_at,
            samples_per_s=num_examples / progress.epoch_train_s,
            grad_evals=progress.grad_evals,
            probe_forwards=progress.probe_forwards,
            metrics=metrics,
        )
        if progress.epochs_done == 0 and record.value(self._goal.metric) is None:
            names = ", ".join(
                ["loss", *sorted(set(evaluated) - {"loss"}), *sorted(m for m in metrics if "train/" in m)]
            )
            raise TargetError(f"best is {str(self._goal)!r}, but the first epoch measured {names}")
        return record

    def _save_if_due(self, score: float | None = None) -> None:
        """Save if the policy says so: every N steps, and with the score of an epoch's end every N epochs."""
        progress, policy = self._progress, self._spec.checkpoint
        is_due = policy.every_steps is not None and progress.step % policy.every_steps == 0
        if score is not None:
            done = progress.epochs_done
            is_due = is_due or done % policy.every_epochs == 0 or done == self._spec.epochs
        elif progress.step_in_epoch == self._steps_per_epoch:
            # The epoch's end, after its evaluation, is the same step and the better place.
            return
        if is_due:
            self._save(score)

    def _save_where_stopped(self, reason: StopReason) -> None:
        progress = self._progress
        is_unevaluated = progress.step_in_epoch == self._steps_per_epoch
        is_costly = reason.is_final and self._num_parameters > CHEAP_CHECKPOINT_PARAMETERS
        if progress.step == self._saved_step or is_unevaluated or is_costly:
            return
        self._save(self._goal.score(progress.final_value) if progress.step_in_epoch == 0 else None)

    def _save(self, score: float | None) -> None:
        # A diverged state must not become what the next attempt goes on from.
        self._raise_if_diverged()
        record = self._store.save(self._progress, self._losses, score)
        self._saved_step = self._progress.step
        if record is not None:
            self._telemetry.report(record)

    def _report_uploaded(self, *, is_end: bool = False) -> None:
        for record in self._store.uploaded(is_end=is_end):
            self._telemetry.report(record)

    def _raise_if_diverged(self) -> None:
        """Compare with the other ranks: all raise or none."""
        step_in_epoch = self._ranks.earliest(self._losses.first_bad())
        if step_in_epoch:
            self._raise_diverged(step_in_epoch)

    def _raise_diverged(self, step_in_epoch: int) -> None:
        progress = self._progress
        loss = self._losses.losses[step_in_epoch - 1].item()
        step = progress.step - progress.step_in_epoch + step_in_epoch
        raise DivergenceError(
            f"training diverged in epoch {progress.epochs_done + 1}, step {step}: the loss is {loss:g} "
            f"(limit {self._losses.limit:g}); a lower lr or rho, or a warm-up, usually helps"
        )

    def _outcome(self, stopped_by: StopReason | None) -> TrainingOutcome:
        optimizer = self._spec.optimizer
        fixed_alpha = optimizer.alpha if isinstance(optimizer, XsamVariant) else None
        summary = self._progress.summary(self._goal, fixed_alpha)
        # Clocks differ; the first rank's is the run's.
        own = (summary.train_s, self._progress.data_wait_s) if self._ranks.is_first else (0.0, 0.0)
        train_s, data_wait_s = self._ranks.sums(*own)
        return TrainingOutcome(replace(summary, train_s=train_s, data_wait_s=data_wait_s), stopped_by)
