"""How examples reach the model: image sources in memory or behind a loader, and batches for training and evaluation.

What the data is and where it comes from is in `datasets.py`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms.functional import pil_to_tensor

from xsam.workers.messages import RankContext
from xsam.workers.training.data.augment import Augmentation
from xsam.workers.training.data.batches import moved, num_processes
from xsam.workers.training.data.mixing import Mixing
from xsam.workers.training.errors import DatasetFormatError
from xsam.workers.training.random_state import epoch_order

EVAL_PIXELS = 2**20
"""Evaluation keeps no activations, so small images go in batches of up to so many values..."""
EVAL_BATCH_MAX = 1024
"""...and up to so many examples."""


class ImageSource(Protocol):
    """Raw images by index."""

    def batches(self, index_batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield `(n, channels, side, side)` on the run's device for each batch of CPU indices."""

    def subset(self, indices: Tensor) -> "ImageSource":
        """Return a source of these examples only, numbered from 0."""

    def to(self, context: RankContext) -> "ImageSource":
        """Return the source ready for a run: on its device, or with its loader processes."""


class TensorImages:
    """All images as one tensor, which lives on the run's device."""

    def __init__(self, images: Tensor) -> None:
        self._images = images

    def batches(self, index_batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield one batch after the other."""
        for indices in index_batches:
            yield self._images[indices.to(self._images.device, non_blocking=True)]

    def subset(self, indices: Tensor) -> "TensorImages":
        """Return a source of these examples only."""
        return TensorImages(self._images[indices])

    def to(self, context: RankContext) -> "TensorImages":
        """Return a source on the run's device."""
        return TensorImages(self._images.to(context.device))


class LoadedImages:
    """Images read one by one from a map-style dataset of `(image, label)`, by loader processes if there are any.

    The dataset must give the same image for the same index every time: randomness belongs into `augment`.
    """

    def __init__(self, items: Any, indices: Tensor, context: RankContext | None = None) -> None:
        self._items = items
        self._indices = indices
        self._device = context.device if context else "cpu"
        self._schedule: list[list[int]] = []
        self._loader = self._make_loader(context) if context else None

    def batches(self, index_batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield one batch after the other; the loader processes work ahead."""
        if self._loader is None:
            raise RuntimeError("batches() before to(context): the source does not know its device yet")
        self._schedule[:] = [self._indices[indices].tolist() for indices in index_batches]
        yield from moved(self._loader, self._device)

    def subset(self, indices: Tensor) -> "LoadedImages":
        """Return a source of these examples only."""
        return LoadedImages(self._items, self._indices[indices])

    def to(self, context: RankContext) -> "LoadedImages":
        """Return a source with its loader processes."""
        return LoadedImages(self._items, self._indices, context)

    def _make_loader(self, context: RankContext) -> "DataLoader[Tensor]":
        num_workers = num_processes(context)
        return DataLoader(
            _ImagesOf(self._items),
            batch_sampler=self._schedule,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=torch.device(context.device).type == "cuda",
            # Without a generator of its own the loader would draw from the global one, once per start of an
            # epoch, and a resumed run would draw once more than one that was not interrupted.
            generator=torch.Generator(),
        )


class _ImagesOf(torch.utils.data.Dataset[Tensor]):
    def __init__(self, items: Any) -> None:
        self._items = items

    def __getitem__(self, index: int) -> Tensor:
        try:
            image = self._items[index][0]
        except OSError as e:
            raise DatasetFormatError(f"example {index} can't be read: {e}") from e
        return as_image(image)

    def __len__(self) -> int:
        return len(self._items)


def as_image(image: Any) -> Tensor:
    """Return an item's image as a `(channels, height, width)` tensor: PIL images as uint8, others as they are."""
    if hasattr(image, "getbands"):
        return pil_to_tensor(image)
    return torch.as_tensor(image)


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Makes model input of raw pixels: `(raw / full_scale - mean) / std` per channel."""

    full_scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def factors(self, device: torch.device | str) -> tuple[Tensor, Tensor]:
        """Return scale and shift, `(channels, 1, 1)` float32, so that input = raw * scale + shift."""
        mean = torch.tensor(self.mean, device=device).view(-1, 1, 1)
        std = torch.tensor(self.std, device=device).view(-1, 1, 1)
        return 1 / (self.full_scale * std), -mean / std


@dataclass(frozen=True, slots=True)
class Split:
    """Examples of one purpose: a source of images and all labels, `(n,)` int64."""

    images: ImageSource
    labels: Tensor

    def subset(self, indices: Tensor) -> "Split":
        """Return these examples only."""
        return Split(self.images.subset(indices), self.labels[indices])

    def to(self, context: RankContext) -> "Split":
        """Return the split ready for a run."""
        return Split(self.images.to(context), self.labels.to(context.device))


@dataclass(frozen=True, slots=True)
class Data:
    """A dataset as a run needs it."""

    train: Split
    evaluation: Split
    image_size: int
    channels: int
    num_classes: int
    normalisation: Normalisation
    validation: Split | None = None
    """Training examples that are held out, with their true labels."""


class TrainFeed:
    """Batches of one rank, epoch by epoch.

    The global batch of a step is the next `batch_size` entries of the epoch's permutation, and every rank takes
    its own equal slice of it: the examples of a step do not depend on the number of ranks. What is left at the
    end of the permutation, less than one global batch, is dropped; each epoch drops others.
    """

    def __init__(
        self,
        data: Data,
        context: RankContext,
        *,
        batch_size: int,
        augment: Sequence[str],
        seed: int,
        mixing: Mixing | None = None,
    ) -> None:
        self._split = data.train.to(context)
        self._scale, self._shift = data.normalisation.factors(context.device)
        self._augmentation = Augmentation(tuple(augment), seed)
        self._mixing = mixing
        self._context = context
        self._batch_size = batch_size
        self._seed = seed
        self.steps_per_epoch = len(data.train.labels) // batch_size

    def batches(self, epoch: int, first_step: int) -> Iterator[tuple[Tensor, ...]]:
        """Yield `(images, labels)`, or what `Mixing.mix` returns, for an epoch's steps from `first_step` on.

        Args:
            epoch: counted from 0.
            first_step: likewise.
        """
        device, num_examples = self._context.device, len(self._split.labels)
        order = epoch_order(num_examples, self._seed, epoch)
        slices = [self._own_part(order, step) for step in range(first_step, self.steps_per_epoch)]
        draws = self._augmentation.draws(epoch, num_examples)
        draws = draws.to(device) if draws is not None else None
        for step, (own, raw) in enumerate(zip(slices, self._split.images.batches(slices), strict=True), first_step):
            indices = own.to(device, non_blocking=True)
            images = self._as_input(raw, draws[indices] if draws is not None else None)
            labels = self._split.labels[indices]
            if self._mixing is None:
                yield images, labels
            else:
                yield self._mixing.mix(images, labels, epoch, step, self._context.rank)

    def _own_part(self, order: Tensor, step: int) -> Tensor:
        size = self._batch_size // self._context.world_size
        start = step * self._batch_size + self._context.rank * size
        return order[start : start + size]

    def _as_input(self, raw: Tensor, draws: Tensor | None) -> Tensor:
        if draws is None:
            return torch.addcmul(self._shift, raw, self._scale)
        images = torch.addcmul(self._shift, self._augmentation.move(raw, draws), self._scale)
        return self._augmentation.cut_out(images, draws)


class EvalFeed:
    """Batches of one rank's share of a dataset's examples to evaluate: every example once over all ranks, none twice.

    All ranks walk the same number of batches, so that they can meet after each; a rank's last may be empty.
    """

    def __init__(self, data: Data, split: Split, context: RankContext, *, batch_size: int) -> None:
        self._split = split.to(context)
        self._scale, self._shift = data.normalisation.factors(context.device)
        self._device = context.device
        self.num_examples = len(split.labels)
        values = data.channels * data.image_size**2
        size = max(batch_size // context.world_size, min(EVAL_BATCH_MAX, EVAL_PIXELS // values))
        own = torch.arange(context.rank, self.num_examples, context.world_size)
        largest_share = -(-self.num_examples // context.world_size)
        self._slices = [own[start : start + size] for start in range(0, largest_share, size)]

    def batches(self) -> Iterator[tuple[Tensor, Tensor] | None]:
        """Yield `(images, labels)`, None where this rank's share has ended before others'."""
        for own, raw in zip(self._slices, self._split.images.batches(self._slices), strict=True):
            labels = self._split.labels[own.to(self._device, non_blocking=True)]
            yield (torch.addcmul(self._shift, raw, self._scale), labels) if len(own) else None
