"""Batches of any structure: where they come from, made of items, moved to a device, measured."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from xsam.workers.messages import RankContext
from xsam.workers.training.errors import DatasetFormatError

Collate = Callable[[list[Any]], Any]


class TrainFeed(Protocol):
    """Training batches of one rank."""

    steps_per_epoch: int

    def batches(self, epoch: int, first_step: int) -> Iterator[Any]:
        """Yield the batches of an epoch from a step on, both counted from 0, on the rank's device."""


class EvalFeed(Protocol):
    """One rank's share of an evaluation set."""

    def batches(self) -> Iterator[Any | None]:
        """Yield batches on the rank's device, on every rank as many; None where a rank has none left."""


def num_processes(context: RankContext) -> int:
    """Return how many processes load data for a rank: all of its CPUs, less one if it trains on the CPU itself."""
    return context.num_threads if torch.device(context.device).type == "cuda" else context.num_threads - 1


def moved(batches: Iterable[Any], device: torch.device | str) -> Iterator[Any]:
    """Yield batches on a device; on a GPU each is on its way while the one before is used."""
    if torch.device(device).type != "cuda":
        yield from (to_device(batch, device) for batch in batches)
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    coming: tuple[Any, torch.cuda.Event] | None = None
    for batch in batches:
        before = coming
        with torch.cuda.stream(stream):
            coming = to_device(batch, device), stream.record_event()
        if before is not None:
            yield _arrived(*before)
    if coming is not None:
        yield _arrived(*coming)


def _arrived(batch: Any, event: torch.cuda.Event) -> Any:
    """Return a batch for use on the present stream, which waits for it; the host does not."""
    current = torch.cuda.current_stream()
    current.wait_event(event)
    for tensor in _tensors_of(batch):
        # Its memory must not go to a later batch while this stream still reads it.
        tensor.record_stream(current)
    return batch


def _tensors_of(batch: Any) -> Iterator[Tensor]:
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping) or hasattr(batch, "values"):
        for value in batch.values():
            yield from _tensors_of(value)
    elif isinstance(batch, list | tuple):
        for value in batch:
            yield from _tensors_of(value)


def to_device(batch: Any, device: torch.device | str) -> Any:
    """Return a batch with its tensors on a device; tuples, lists and mappings are walked, the rest stays."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(part, device) for part in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(to_device(part, device) for part in batch)
    # Hugging Face's BatchEncoding, PyTorch Geometric's Batch and their like.
    return batch.to(device) if hasattr(batch, "to") else batch


def split(batch: Any, parts: int) -> list[Any]:
    """Return a batch as so many equal micro-batches: tensors and lists of one entry per example are cut.

    Raises:
        DatasetFormatError: its examples can't be told apart, or are not so many times something.
    """
    if parts == 1:
        return [batch]
    size = length_of(batch)
    if size % parts:
        raise DatasetFormatError(f"recipe.micro_batches is {parts}, but a batch has {size} examples")
    step = size // parts
    return [_cut(batch, size, slice(start, start + step)) for start in range(0, size, step)]


def _cut(batch: Any, size: int, part: slice) -> Any:
    if isinstance(batch, Tensor):
        return batch[part] if batch.ndim and len(batch) == size else batch
    if isinstance(batch, dict) or (isinstance(batch, Mapping) and hasattr(batch, "items")):
        return {key: _cut(value, size, part) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_cut(one, size, part) for one in batch))
    if isinstance(batch, list | tuple):
        if len(batch) == size and not any(isinstance(one, Tensor) and one.ndim for one in batch):
            return batch[part]
        return type(batch)(_cut(one, size, part) for one in batch)
    if batch is None or isinstance(batch, str | int | float):
        return batch
    raise DatasetFormatError(
        f"recipe.micro_batches cuts batches of tensors, mappings, lists and tuples, not of {type(batch).__name__}; "
        "leave it at 1"
    )


def length_of(batch: Any) -> int:
    """Return the length of the first tensor in a batch.

    Raises:
        DatasetFormatError: it holds none.
    """
    first = _first_tensor(batch)
    if first is None:
        raise DatasetFormatError(
            f"a batch is a {type(batch).__name__} without a tensor that has a length; give the task length(batch)"
        )
    return len(first)


def _first_tensor(batch: Any) -> Tensor | None:
    if isinstance(batch, Tensor):
        return batch if batch.ndim else None
    parts: Sequence[Any] = ()
    if isinstance(batch, Mapping) or hasattr(batch, "values"):
        parts = list(batch.values())
    elif isinstance(batch, list | tuple):
        parts = batch
    return next((found for part in parts if (found := _first_tensor(part)) is not None), None)


def collated(items: list[Any], collate: Collate | None) -> Any:
    """Return the batch of a list of items.

    Raises:
        DatasetFormatError: torch's default can't make one of them.
    """
    if collate is not None:
        return collate(items)
    try:
        return torch.utils.data.default_collate(items)
    except (TypeError, RuntimeError) as e:
        raise DatasetFormatError(
            f"items of type {type(items[0]).__name__} can't be put together to a batch ({_first_line(e)}); give the "
            "task collate(items)"
        ) from e


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
