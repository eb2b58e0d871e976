"""What the loop sees of a task, the built-in one or a team's own."""

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from xsam.workers.sdk.sums import Collected, Sum, Value
from xsam.workers.training.data.batches import EvalFeed, TrainFeed
from xsam.workers.training.tasks.goal import Goal


class RunningTask(Protocol):
    """A task with its data, checked and ready for a run."""

    goal: Goal
    """What the best epoch is."""
    loss_limit: float
    """A loss above it has exploded."""
    notes: tuple[str, ...]
    """What whoever brought the task should know: what is replaced of it."""

    def model(self) -> nn.Module:
        """Return the network, on the CPU; called once, after seeding."""

    def param_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Return the optimizer's groups."""

    def train_feed(self) -> TrainFeed:
        """Return the training batches."""

    def eval_feeds(self) -> dict[str, EvalFeed]:
        """Return the evaluation sets by name."""

    def on_epoch(self, model: nn.Module, epoch: int) -> None:
        """Prepare the model for an epoch, counted from 1."""

    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, Mapping[str, Value]]:
        """Return the mean loss over a batch, and what else to measure of it."""

    def length(self, batch: Any) -> float:
        """Return the weight of a batch among others: its examples, or what the task counts."""

    def evaluate(self, model: nn.Module, batch: Any) -> Mapping[str, Sum | Collected]:
        """Return what to measure of a batch; `loss` among it."""

    def metrics(self, collected: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, float]:
        """Return the metrics of everything that was collected."""
