"""Batches of a team's own data, map-style or iterable, for one rank."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from xsam.services.specs.job import JobSpec
from xsam.workers.messages import RankContext
from xsam.workers.training.data.batches import Collate, EvalFeed, TrainFeed, collated, moved, num_processes, to_device
from xsam.workers.training.errors import DatasetFormatError, TooFewExamplesError
from xsam.workers.training.random_state import (
    derive_seed,
    epoch_order,
    random_states,
    restore_random_states,
    seed_everything,
)

Chosen = tuple[int, list[int]]
"""A batch to be made: its seed and the examples' indices."""


def train_feed_of(data: Any, spec: JobSpec, context: RankContext, collate: Collate | None) -> TrainFeed:
    """Return the training batches of a dataset.

    Raises:
        TooFewExamplesError: it has less than one global batch.
        DatasetFormatError: it is iterable, and nothing says how long an epoch is.
    """
    if _is_map_style(data):
        return MapTrainFeed(data, spec, context, collate)
    return StreamTrainFeed(data, spec, context, collate)


def eval_feed_of(data: Any, spec: JobSpec, context: RankContext, collate: Collate | None) -> EvalFeed:
    """Return one rank's share of an evaluation set."""
    feed = MapEvalFeed if _is_map_style(data) else StreamEvalFeed
    return feed(data, spec, context, collate)


def _is_map_style(data: Any) -> bool:
    is_iterable = isinstance(data, torch.utils.data.IterableDataset)
    return not is_iterable and hasattr(data, "__getitem__") and hasattr(data, "__len__")


class MapTrainFeed:
    """Batches of a map-style dataset, shuffled by epoch.

    The global batch of a step is the next `batch_size` entries of the epoch's permutation, of which each rank takes
    an equal slice; the rest of the permutation, less than one batch, is dropped. What is random in the dataset or in
    `collate` depends on the seed, the epoch, the step and the rank alone, not on the number of loader processes.
    """

    def __init__(self, data: Any, spec: JobSpec, context: RankContext, collate: Collate | None) -> None:
        self._num_examples = len(data)
        self._batch_size = spec.batch_size
        self._seed = spec.seed
        self._context = context
        if self._num_examples < spec.batch_size:
            raise TooFewExamplesError(
                f"batch_size is {spec.batch_size}, but train_data() has {self._num_examples} examples; "
                "an epoch needs at least one whole batch"
            )
        whole = self._num_examples // spec.batch_size
        self.steps_per_epoch = min(spec.steps_per_epoch or whole, whole)
        self._source = _source_of(data, context, collate)

    def batches(self, epoch: int, first_step: int) -> Iterator[Any]:
        """Yield the batches of an epoch from a step on, both counted from 0."""
        order = epoch_order(self._num_examples, self._seed, epoch)
        rank = self._context.rank
        chosen = [
            (derive_seed(self._seed, "batch", epoch, step, rank), self._own_part(order, step).tolist())
            for step in range(first_step, self.steps_per_epoch)
        ]
        return self._source.batches(chosen)

    def _own_part(self, order: Tensor, step: int) -> Tensor:
        size = self._batch_size // self._context.world_size
        start = step * self._batch_size + self._context.rank * size
        return order[start : start + size]


class MapEvalFeed:
    """Every example of a map-style dataset once over all ranks, in order; all ranks walk the same number of batches."""

    def __init__(self, data: Any, spec: JobSpec, context: RankContext, collate: Collate | None) -> None:
        self._seed = spec.seed
        size = spec.batch_size // context.world_size
        own = range(context.rank, len(data), context.world_size)
        largest_share = -(-len(data) // context.world_size)
        self._slices = [list(own[start : start + size]) for start in range(0, largest_share, size)]
        self._source = _source_of(data, context, collate)

    def batches(self) -> Iterator[Any | None]:
        """Yield the batches, None for those that only other ranks have."""
        chosen = [(derive_seed(self._seed, "eval", n), own) for n, own in enumerate(self._slices) if own]
        yield from self._source.batches(chosen)
        yield from [None] * (len(self._slices) - len(chosen))


def _source_of(data: Any, context: RankContext, collate: Collate | None) -> "_Tensors | _Loaded":
    if type(data) is TensorDataset and collate is None:
        return _Tensors(data.tensors, context)
    return _Loaded(data, context, collate)


class _Tensors:
    """Tensors on the CPU, taken by index without a loop over examples."""

    def __init__(self, tensors: Sequence[Tensor], context: RankContext) -> None:
        self._tensors = tensors
        self._device = context.device

    def batches(self, chosen: Sequence[Chosen]) -> Iterator[list[Tensor]]:
        for _, indices in chosen:
            index = torch.tensor(indices)
            yield [tensor[index].to(self._device, non_blocking=True) for tensor in self._tensors]


class _Loaded:
    """Items read one by one, by loader processes if the rank has more than one thread."""

    def __init__(self, data: Any, context: RankContext, collate: Collate | None) -> None:
        num_workers = num_processes(context)
        self._context = context
        self._is_here = num_workers == 0
        self._schedule: list[Chosen] = []
        self._batches = _Batches(data, collate)
        self._loader = DataLoader(
            self._batches,
            batch_size=None,
            sampler=self._schedule,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=torch.device(context.device).type == "cuda",
            # One of its own: drawing from the global one would make a resumed run another run.
            generator=torch.Generator(),
        )

    def batches(self, chosen: Sequence[Chosen]) -> Iterator[Any]:
        self._schedule[:] = chosen
        made = map(self._made_here, chosen) if self._is_here else self._loader
        yield from moved(made, self._context.device)

    def _made_here(self, one: Chosen) -> Any:
        """Make a batch in this process, without a trace in the generators that dropout draws from."""
        before = random_states(self._context)
        try:
            return self._batches[one]
        finally:
            restore_random_states(before, self._context)


class _Batches(torch.utils.data.Dataset[Any]):
    """A dataset whose items are whole batches."""

    def __init__(self, data: Any, collate: Collate | None) -> None:
        self._data = data
        self._collate = collate

    def __getitem__(self, chosen: Chosen) -> Any:
        seed, indices = chosen
        seed_everything(seed)
        if hasattr(self._data, "__getitems__"):
            items = self._data.__getitems__(indices)
        else:
            items = [self._data[index] for index in indices]
        return collated(list(items), self._collate)


class StreamTrainFeed:
    """Batches of an iterable dataset.

    Every rank reads the whole stream and keeps its share, so the examples of a step do not depend on the number of
    ranks. A run that goes on inside an epoch reads and drops the examples that it had used.
    """

    def __init__(self, data: Any, spec: JobSpec, context: RankContext, collate: Collate | None) -> None:
        self._stream = _Stream(data, spec, context, collate)
        if spec.steps_per_epoch is None and not hasattr(data, "__len__"):
            raise DatasetFormatError(
                f"train_data() returned a {type(data).__name__} without a length; say steps_per_epoch in the job"
            )
        self.steps_per_epoch = spec.steps_per_epoch or len(data) // spec.batch_size
        if not self.steps_per_epoch:
            raise TooFewExamplesError(f"batch_size is {spec.batch_size}, but train_data() has {len(data)} examples")

    def batches(self, epoch: int, first_step: int) -> Iterator[Any]:
        """Yield the batches of an epoch from a step on, both counted from 0."""
        found = self._stream.shares("stream", epoch, is_whole=True)
        number = -1
        for number, make in enumerate(itertools.islice(found, self.steps_per_epoch)):
            if number >= first_step:
                yield make()
        if number + 1 < self.steps_per_epoch:
            raise DatasetFormatError(
                f"train_data() ended after {number + 1} batches in epoch {epoch + 1}; an epoch is "
                f"{self.steps_per_epoch} (its length, or steps_per_epoch of the job)"
            )


class StreamEvalFeed:
    """Every example of an iterable dataset once over all ranks."""

    def __init__(self, data: Any, spec: JobSpec, context: RankContext, collate: Collate | None) -> None:
        self._stream = _Stream(data, spec, context, collate)

    def batches(self) -> Iterator[Any | None]:
        """Yield the batches, None where this rank has no share of one."""
        for make in self._stream.shares("eval stream", 0, is_whole=False):
            yield make()


class _Stream:
    def __init__(self, data: Iterable[Any], spec: JobSpec, context: RankContext, collate: Collate | None) -> None:
        self._data = data
        self._collate = collate
        self._spec = spec
        self._context = context

    def shares(self, purpose: str, epoch: int, *, is_whole: bool) -> Iterator["_Share"]:
        """Yield this rank's share of each global batch; `is_whole` leaves out a last, smaller one."""
        if hasattr(self._data, "set_epoch"):
            self._data.set_epoch(epoch)
        items = iter(self._data)
        rank, world_size, size = self._context.rank, self._context.world_size, self._spec.batch_size
        own = size // world_size
        for number in itertools.count():
            seed = derive_seed(self._spec.seed, purpose, epoch, number)
            taken = self._take(items, size, seed)
            if not taken or (is_whole and len(taken) < size):
                return
            share = taken[rank * own : (rank + 1) * own] if is_whole else taken[rank::world_size]
            yield _Share(share, self._collate, self._context, derive_seed(seed, "collate", rank))

    def _take(self, items: Iterator[Any], size: int, seed: int) -> list[Any]:
        before = random_states(self._context)
        seed_everything(seed)
        try:
            return list(itertools.islice(items, size))
        finally:
            restore_random_states(before, self._context)


class _Share:
    """One rank's examples of a global batch, put together only if they are used."""

    def __init__(self, items: list[Any], collate: Collate | None, context: RankContext, seed: int) -> None:
        self._items = items
        self._collate = collate
        self._context = context
        self._seed = seed

    def __call__(self) -> Any | None:
        if not self._items:
            return None
        before = random_states(self._context)
        seed_everything(self._seed)
        try:
            return to_device(collated(self._items, self._collate), self._context.device)
        finally:
            restore_random_states(before, self._context)
