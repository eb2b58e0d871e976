"""Where a run stands and what it has amounted to so far: everything that its rows and its summary are made of."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from xsam.services.jobs.summary import TrainingSummary
from xsam.services.metrics.records import AlphaRecord, EpochRecord
from xsam.workers.sdk.sums import Value, as_sum
from xsam.workers.training.errors import TargetError
from xsam.workers.training.tasks.goal import Goal


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
    data_wait_s: float = 0.0
    """Seconds of training in which a step waited for its batch, over all attempts."""
    grad_evals: int = 0
    probe_forwards: int = 0
    alpha_sum: float = 0.0
    num_alphas: int = 0
    is_search_due: bool = False
    """Whether the search for alpha* of the step before was lost to an overflow of fp16."""
    best_epoch: int = 0
    best_value: float | None = None
    """The goal's metric in the best epoch."""
    best_accuracy: float | None = None
    """The highest of any epoch."""
    final_value: float | None = None
    final_accuracy: float | None = None
    final_eval_loss: float = 0.0
    final_metrics: dict[str, float] = field(default_factory=dict)

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

    def take_alpha(self, record: AlphaRecord, *, num_batches: int = 1) -> None:
        """Count a search for alpha* that looked at the loss of so many batches."""
        self.probe_forwards += len(record.alphas) * num_batches
        self.alpha_sum += record.alpha
        self.num_alphas += 1

    def finish_epoch(self, record: EpochRecord, goal: Goal) -> bool:
        """Take in an epoch's outcome; return whether it is the best so far."""
        self.epochs_done = record.epoch
        self.step_in_epoch = 0
        self.epoch_train_s = 0.0
        self.train_s += record.epoch_s
        self.final_accuracy = record.eval_accuracy
        self.final_eval_loss = record.eval_loss
        self.final_metrics = dict(record.metrics)
        self.final_value = record.value(goal.metric)
        if record.eval_accuracy is not None:
            self.best_accuracy = max(record.eval_accuracy, self.best_accuracy or 0.0)
        is_best = self.best_epoch == 0 or goal.score(self.final_value) > goal.score(self.best_value)
        if is_best:
            self.best_epoch, self.best_value = record.epoch, self.final_value
        return is_best

    def summary(self, goal: Goal, fixed_alpha: float | None) -> TrainingSummary:
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
            best_metric=str(goal),
            best_value=self.best_value,
            final_metrics=self.final_metrics,
        )


class EpochLosses:
    """The running epoch's loss, and what else is measured of it, step by step, on the device: nothing waits for it.

    They belong to one rank, so a checkpoint keeps them with the rank's own state.

    Args:
        steps_per_epoch: of the run.
        device: the rank's.
        limit: a loss above it has exploded.
    """

    def __init__(self, steps_per_epoch: int, device: torch.device | str, *, limit: float) -> None:
        self.losses = torch.zeros(steps_per_epoch, device=device)
        self.limit = limit
        self._values: dict[str, Tensor] = {}
        """By name `(steps, 2)` float64: each step's total and weight."""
        self._num_recorded = 0
        self._num_checked = 0
        self._num_reported = 0

    def restart(self, step: int) -> None:
        """Go on recording behind `step`: 0 in a new epoch, more where a checkpoint filled the steps before."""
        self._num_recorded = self._num_checked = self._num_reported = step

    def values(self) -> dict[str, Any]:
        """Return the recorded steps, on the CPU."""
        steps = slice(self._num_recorded)
        named = {name: value[steps].cpu().clone() for name, value in self._values.items()}
        return {"losses": self.losses[steps].cpu().clone(), "values": named}

    def load_values(self, values: dict[str, Any]) -> None:
        """Take over the steps of an interrupted epoch; `restart` behind them comes next."""
        steps = slice(len(values["losses"]))
        self.losses[steps] = values["losses"].to(self.losses.device)
        for name, value in values["values"].items():
            self._row(name)[steps] = value.to(self.losses.device)

    def record(self, loss: Tensor, values: Mapping[str, Value]) -> None:
        """Add a step.

        Raises:
            TargetError: the values have other names than those of the step before.
        """
        step = self._num_recorded
        self.losses[step] = loss
        for name, value in values.items():
            row, added = self._row(name), as_sum(value)
            row[step, 0], row[step, 1] = added.total, added.weight
        if self._values.keys() != values.keys():
            raise TargetError(
                f"the task's loss named {', '.join(values) or 'nothing'} in this step, but "
                f"{', '.join(self._values)} before; it must name the same values in every step"
            )
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

    def total(self) -> Tensor:
        """Return the sum of the losses, in float64."""
        return self.losses.double().sum()

    def sums(self) -> dict[str, Tensor]:
        """Return totals and weights, `(2,)` float64, of everything else that was measured, by name."""
        return {name: self._values[name].sum(0) for name in sorted(self._values)}

    def _row(self, name: str) -> Tensor:
        if name not in self._values:
            shape = (len(self.losses), 2)
            self._values[name] = torch.zeros(shape, dtype=torch.float64, device=self.losses.device)
        return self._values[name]
