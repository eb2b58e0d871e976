"""The built-in task: images of a named dataset, a named network, cross-entropy."""

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor, nn

from xsam.services.specs.job import JobSpec
from xsam.workers.messages import RankContext
from xsam.workers.sdk.sums import Collected, Sum, Value
from xsam.workers.training.data.feeds import Data, EvalFeed, TrainFeed
from xsam.workers.training.data.mixing import Mixing
from xsam.workers.training.data.sources import prepare_data
from xsam.workers.training.errors import TooFewExamplesError
from xsam.workers.training.models import build_model
from xsam.workers.training.ranks import Ranks
from xsam.workers.training.tasks.goal import Goal

Batch = tuple[Tensor, ...]
"""Images and labels; where images are mixed also the partners' labels and each image's own share."""

EXPLOSION_FACTOR = 1000.0
"""A loss so many times that of guessing (the logarithm of the class count) has exploded."""


class ImageClassification:
    """A job's model and dataset as a task.

    Args:
        spec: the job.
        context: this rank.
        ranks: the collectives.

    Raises:
        TooFewExamplesError: less than one batch. Also what `prepare_data` raises.
    """

    def __init__(self, spec: JobSpec, context: RankContext, ranks: Ranks) -> None:
        self._spec = spec
        self._context = context
        self._data = prepare_data(spec.dataset, context, ranks, seed=spec.seed)
        _check_batch_size(spec, self._data)
        self.goal = Goal.parse(spec.best or "accuracy:max")
        self.notes: tuple[str, ...] = ()
        self.loss_limit = EXPLOSION_FACTOR * math.log(max(self._data.num_classes, 2))

    def model(self) -> nn.Module:
        """Return the network."""
        data = self._data
        return build_model(
            self._spec.model,
            self._context,
            image_size=data.image_size,
            channels=data.channels,
            num_classes=data.num_classes,
        )

    def param_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Return all parameters as one group."""
        return [{"params": list(model.parameters())}]

    def train_feed(self) -> TrainFeed:
        """Return the training batches, `(images, labels)`."""
        spec = self._spec
        data = spec.dataset
        mixing = Mixing(data.mixup, data.cutmix, spec.seed)
        return TrainFeed(
            self._data,
            self._context,
            batch_size=spec.batch_size,
            augment=data.augment,
            seed=spec.seed,
            mixing=mixing if mixing.is_on else None,
        )

    def eval_feeds(self) -> dict[str, Any]:
        """Return the dataset's evaluation part, and the examples that are held out of training if there are any."""
        parts = {"eval": self._data.evaluation}
        if self._data.validation is not None:
            parts["validation"] = self._data.validation
        return {
            name: EvalFeed(self._data, part, self._context, batch_size=self._spec.batch_size)
            for name, part in parts.items()
        }

    def on_epoch(self, model: nn.Module, epoch: int) -> None:
        """Do nothing."""

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Mapping[str, Value]]:
        """Return cross-entropy with the labels as the job smooths and mixes them, and accuracy, mixed alike."""
        images, labels, *mixed = batch
        smoothing = self._spec.dataset.label_smoothing
        logits = model(images).float()
        answers = logits.detach()
        if mixed:
            partners, share = mixed
            own = F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
            other = F.cross_entropy(logits, partners, reduction="none", label_smoothing=smoothing)
            return torch.lerp(other, own, share).mean(), {
                "accuracy": lambda: Sum(
                    torch.where(answers.argmax(1) == labels, share, 0.0).sum()
                    + torch.where(answers.argmax(1) == partners, 1 - share, 0.0).sum(),
                    len(labels),
                )
            }
        return F.cross_entropy(logits, labels, label_smoothing=smoothing), {
            "accuracy": lambda: Sum((answers.argmax(1) == labels).sum(), len(labels))
        }

    def length(self, batch: Batch) -> float:
        """Return the number of images."""
        return len(batch[1])

    def evaluate(self, model: nn.Module, batch: Batch) -> Mapping[str, Sum | Collected]:
        """Return cross-entropy, and accuracy."""
        images, labels, *_ = batch
        logits = model(images)
        return {
            "loss": Sum(F.cross_entropy(logits.float(), labels, reduction="sum"), len(labels)),
            "accuracy": Sum((logits.argmax(1) == labels).sum(), len(labels)),
        }

    def metrics(self, collected: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, float]:
        """Return nothing: what it measures adds up."""
        return {}


def _check_batch_size(spec: JobSpec, data: Data) -> None:
    available = len(data.train.labels)
    if available < spec.batch_size:
        raise TooFewExamplesError(
            f"batch_size is {spec.batch_size}, but dataset {spec.dataset.name} has {available} training examples; "
            "an epoch needs at least one whole batch"
        )
