"""Values that add up over batches and ranks: what losses and evaluations report."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


class NoSumError(TypeError):
    """A loss named a value that is no number of a batch."""


@dataclass(frozen=True, slots=True)
class Sum:
    """A total and its weight, of one batch; the metric is the sum of the totals over the sum of the weights."""

    total: Tensor | float
    """A scalar."""
    weight: Tensor | float
    """A scalar."""


@dataclass(frozen=True, slots=True)
class Collected:
    """Predictions and targets of one batch, for metrics that don't add up; all batches come to `Task.metrics`."""

    prediction: Tensor
    """`(examples, ...)`."""
    target: Tensor
    """`(examples, ...)`."""


Value = Tensor | float | Sum | Callable[[], "Tensor | float | Sum"]
"""What a loss may name beside itself. A callable is called once a step, on the first pass's values."""


def mean(values: Tensor, weight: float | None = None) -> Sum:
    """Return the mean over examples.

    Args:
        values: one per example, or the mean of the batch, a scalar.
        weight: how many examples a scalar is the mean of.

    Raises:
        ValueError: a scalar without its weight.
    """
    if values.ndim:
        return Sum(values.detach().sum(dtype=torch.float64), values.numel())
    if weight is None:
        raise ValueError("mean() got a scalar without its weight; pass mean(value, number of examples)")
    return Sum(values.detach().double() * weight, weight)


def ratio(part: Tensor | float, whole: Tensor | float) -> Sum:
    """Return a share, e.g. `ratio((logits.argmax(1) == labels).sum(), len(labels))`."""
    return Sum(part.detach() if isinstance(part, Tensor) else part, whole)


def as_sum(value: Value, weight: float = 1.0) -> Sum:
    """Return what a loss has named beside itself as a sum; `weight` is that of a scalar."""
    given = value() if callable(value) else value
    if isinstance(given, Sum):
        return given
    if not isinstance(given, Tensor | float | int):
        raise NoSumError(
            f"a value named beside the loss is a {type(given).__name__}; allowed are numbers, tensors, mean(...) and "
            "ratio(...)"
        )
    return mean(given, weight) if isinstance(given, Tensor) else Sum(given * weight, weight)


def collect(prediction: Tensor, target: Tensor) -> Collected:
    """Keep predictions and targets of all batches, `(examples, ...)` each, for `Task.metrics`.

    Raises:
        ValueError: they are not of equal length.
    """
    if not prediction.ndim or not target.ndim or len(prediction) != len(target):
        raise ValueError(
            f"collect() got shapes {tuple(prediction.shape)} and {tuple(target.shape)}; "
            "both must have one entry per example"
        )
    return Collected(prediction.detach(), target.detach())
