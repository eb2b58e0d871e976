"""Where a run stands and what it has amounted to so far: everything that its rows and its summary are made of."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from xsam.services.jobs.summary import TrainingSummary
from xsam.services.metrics.records import AlphaRecord, EpochRecord

EXPLOSION_FACTOR = 1000.0
"""A loss so many times that of guessing (the logarithm of the class count) has exploded."""


@dataclass(slots=True)
class Progress:
    """The position in the run and its running totals; the same on every rank, and part of every checkpoint."""

    epochs_done: int = 0
    step: int = 0
    """Training steps done since the start of the run."""
    step_in_epoch: int = 0
    """Training steps done in the running epoch."""
    epoch_train_s: float = 0.0
    """Seconds of training in the running epoch, over all attempts."""
    train_s: float = 0.0
    grad_evals: int = 0
    probe_forwards: int = 0
    alpha_sum: float = 0.0
    num_alphas: int = 0
    best_epoch: int = 0
    best_accuracy: float = 0.0
    final_accuracy: float = 0.0
    final_eval_loss: float = 0.0

    def values(self) -> dict[str, Any]:
        """Return plain values that JSON keeps exactly."""
        return asdict(self)

    def load_values(self, values: dict[str, Any]) -> None:
        """Take over what `values` returned."""
        for name, value in values.items():
            setattr(self, name, value)

    def position(self) -> str:
        """Return where the run is, for people: the epoch and the step it works on, both from 1."""
        return f"epoch {self.epochs_done + 1}, step {self.step + 1}"

    def take_step(self, grad_evals: int) -> None:
        """Count a training step that cost so many forward-backward passes."""
        self.step += 1
        self.step_in_epoch += 1
        self.grad_evals += grad_evals

    def take_alpha(self, record: AlphaRecord) -> None:
        """Count a search for alpha*."""
        self.probe_forwards += len(record.alphas)
        self.alpha_sum += record.alpha
        self.num_alphas += 1

    def finish_epoch(self, record: EpochRecord) -> bool:
        """Take in an epoch's outcome; return whether it is the best so far."""
        self.epochs_done = record.epoch
        self.step_in_epoch = 0
        self.epoch_train_s = 0.0
        self.train_s += record.epoch_s
        self.final_accuracy = record.eval_accuracy
        self.final_eval_loss = record.eval_loss
        is_best = self.best_epoch == 0 or record.eval_accuracy > self.best_accuracy
        if is_best:
            self.best_epoch, self.best_accuracy = record.epoch, record.eval_accuracy
        return is_best

    def summary(self, fixed_alpha: float | None) -> TrainingSummary:
        """Return the run's summary; `fixed_alpha` is the job's alpha where it is not searched."""
        return TrainingSummary(
            epochs=self.epochs_done,
            step=self.step,
            best_epoch=self.best_epoch,
            best_accuracy=self.best_accuracy,
            final_accuracy=self.final_accuracy,
            final_eval_loss=self.final_eval_loss,
            train_s=self.train_s + self.epoch_train_s,
            grad_evals=self.grad_evals,
            probe_forwards=self.probe_forwards,
            mean_alpha=self.alpha_sum / self.num_alphas if self.num_alphas else fixed_alpha,
        )


class EpochLosses:
    """The running epoch's loss and correct answers, step by step, on the device: nothing waits until it is read.

    They belong to one rank, so a checkpoint keeps them with the rank's own state.
    """

    def __init__(self, steps_per_epoch: int, num_classes: int, device: torch.device | str) -> None:
        self.losses = torch.zeros(steps_per_epoch, device=device)
        self.num_correct = torch.zeros(steps_per_epoch, dtype=torch.int64, device=device)
        self.limit = EXPLOSION_FACTOR * math.log(max(num_classes, 2))
        self._num_recorded = 0
        self._num_checked = 0
        self._num_reported = 0

    def restart(self, step: int) -> None:
        """Go on recording behind `step`: 0 in a new epoch, more where a checkpoint filled the steps before."""
        self._num_recorded = self._num_checked = self._num_reported = step

    def values(self) -> dict[str, Tensor]:
        """Return the recorded steps, on the CPU."""
        steps = slice(self._num_recorded)
        return {"losses": self.losses[steps].cpu().clone(), "num_correct": self.num_correct[steps].cpu().clone()}

    def load_values(self, values: dict[str, Tensor]) -> None:
        """Take over the steps of an interrupted epoch; `restart` behind them comes next."""
        steps = slice(len(values["losses"]))
        self.losses[steps] = values["losses"].to(self.losses.device)
        self.num_correct[steps] = values["num_correct"].to(self.losses.device)

    def record(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a step."""
        self.losses[self._num_recorded] = loss
        self.num_correct[self._num_recorded] = (logits.argmax(1) == labels).sum()
        self._num_recorded += 1

    def first_bad(self) -> int:
        """Return the first step, from 1, since the last call whose loss is not finite or exploded, or 0."""
        start, self._num_checked = self._num_checked, self._num_recorded
        for step, loss in enumerate(self.losses[start : self._num_recorded].tolist(), start=start + 1):
            # A NaN compares false, so it is bad as well.
            if not -math.inf < loss < self.limit:
                return step
        return 0

    def mean_since_report(self) -> float:
        """Return the mean loss since the last call."""
        start, self._num_reported = self._num_reported, self._num_recorded
        return self.losses[start : self._num_recorded].mean().item()

    def totals(self) -> tuple[Tensor, Tensor]:
        """Return the sum of the losses, in float64, and of the correct answers."""
        return self.losses.double().sum(), self.num_correct.sum()
