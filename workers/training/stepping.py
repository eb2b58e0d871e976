"""One training step: the task's loss over the micro-batches, in every pass of the optimizer."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from xsam.services.specs.job import JobSpec
from xsam.workers.sdk.sums import Sum, Value, as_sum
from xsam.workers.training.build import Parts
from xsam.workers.training.data.batches import split
from xsam.workers.training.errors import TargetError
from xsam_core import SharpnessAware

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
Closure = Callable[[], Tensor]


@dataclass(frozen=True, slots=True)
class Stepped:
    """What came of a step."""

    loss: Tensor
    """Before the step, detached."""
    values: Mapping[str, Value]
    """What the task's loss named beside itself in the first pass."""
    is_skipped: bool = False
    """Whether fp16 overflowed, so that nothing has changed but the scale."""


class Stepper:
    """Takes the steps of one rank.

    Args:
        spec: the job.
        parts: what is trained.
        device: the rank's.
    """

    def __init__(self, spec: JobSpec, parts: Parts, device: str) -> None:
        self._parts = parts
        self._num_parts = spec.recipe.micro_batches
        self._max_grad_norm = spec.recipe.max_grad_norm
        self._params = [p for group in parts.optimizer.param_groups for p in group["params"]]
        dtype = _DTYPES.get(spec.precision)
        self.autocast: AbstractContextManager[object] = (
            nullcontext() if dtype is None else torch.autocast(torch.device(device).type, dtype=dtype)
        )
        """Context of every forward pass."""

    def step(self, batch: Any, *, number: int, search_alpha: bool, next_batches: Sequence[Any] = ()) -> Stepped:
        """Do one step.

        Args:
            batch: this rank's.
            number: of the step in the run, from 0.
            search_alpha: whether XSAM searches.
            next_batches: whose loss the search looks at beside the batch's.
        """
        micro_batches = split(batch, self._num_parts)
        values: list[Mapping[str, Value]] = []
        closures = [self._closure(one, values, place) for place, one in enumerate(micro_batches)]
        weights = self._weights(micro_batches)
        searched = self._searched([batch, *next_batches]) if search_alpha and next_batches else None
        optimizer = self._parts.optimizer
        if isinstance(optimizer, SharpnessAware):
            loss, is_skipped = self._sharp(optimizer, closures, weights, search_alpha, searched)
        else:
            loss, is_skipped = self._plain(optimizer, closures, weights)
        if self._parts.average is not None:
            self._parts.average.update(self._parts.model, number)
        return Stepped(loss, values[0] if len(values) == 1 else _joined(values), is_skipped)

    def _closure(self, batch: Any, values: list[Mapping[str, Value]] | None = None, place: int = 0) -> Closure:
        task, model, autocast = self._parts.task, self._parts.wrapped, self.autocast

        def closure() -> Tensor:
            with autocast:
                loss, named = task.loss(model, batch)
            if values is not None and len(values) == place:
                values.append(named)
            return loss

        return closure

    def _searched(self, batches: Sequence[Any]) -> Closure:
        """Return the mean loss of several batches as a closure; what else they measure is not kept."""
        micro_batches = [one for batch in batches for one in split(batch, self._num_parts)]
        weights = self._weights(micro_batches) or [1 / len(micro_batches)] * len(micro_batches)
        closures = [self._closure(one) for one in micro_batches]

        def closure() -> Tensor:
            losses = [one() * weight for one, weight in zip(closures, weights, strict=True)]
            return sum(losses[1:], start=losses[0])

        return closure

    def _weights(self, micro_batches: Sequence[Any]) -> list[float] | None:
        """Return each part's share of the examples (or what the task counts); None for equal ones."""
        if len(micro_batches) == 1:
            return None
        lengths = [float(self._parts.task.length(one)) for one in micro_batches]
        total = sum(lengths)
        return None if len(set(lengths)) == 1 or not total else [length / total for length in lengths]

    def _sharp(
        self,
        optimizer: SharpnessAware,
        closures: list[Closure],
        weights: list[float] | None,
        search_alpha: bool,
        searched: Closure | None,
    ) -> tuple[Tensor, bool]:
        scaler = self._parts.scaler
        loss = optimizer.step(
            closures, search_alpha=search_alpha, search_closure=searched, weights=weights, grad_scaler=scaler
        )
        if loss is None:
            raise RuntimeError(f"{type(optimizer).__name__}.step(closures) returned no loss")
        if scaler is None:
            return loss, False
        scaler.update()
        seen = optimizer.telemetry
        return loss, seen is not None and seen.skipped

    def _plain(
        self, optimizer: torch.optim.Optimizer, closures: list[Closure], weights: list[float] | None
    ) -> tuple[Tensor, bool]:
        scaler = self._parts.scaler
        optimizer.zero_grad(set_to_none=True)
        losses = []
        for number, closure in enumerate(closures):
            # Several workers exchange gradients once, with the last part.
            with self._exchange(is_last=number == len(closures) - 1):
                loss = closure()
                if len(closures) > 1:
                    loss = loss * (1 / len(closures) if weights is None else weights[number])
                (loss if scaler is None else scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        if self._max_grad_norm is not None:
            if scaler is not None:
                scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(self._params, self._max_grad_norm)
        _descend(optimizer, scaler)
        return sum(losses[1:], start=losses[0]), False

    def _exchange(self, *, is_last: bool) -> AbstractContextManager[object]:
        wrapped = self._parts.wrapped
        return nullcontext() if is_last or not hasattr(wrapped, "no_sync") else wrapped.no_sync()  # type: ignore[operator]


def _descend(optimizer: torch.optim.Optimizer, scaler: GradScaler | None) -> None:
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()


def _joined(parts: Sequence[Mapping[str, Value]]) -> dict[str, Sum]:
    """Return the values of all micro-batches as one batch's."""
    joined = {name: as_sum(value) for name, value in parts[0].items()}
    for part in parts[1:]:
        if part.keys() != joined.keys():
            raise TargetError(f"the task's loss named {', '.join(part)} in one micro-batch, {', '.join(joined)} before")
        for name, value in part.items():
            own, more = joined[name], as_sum(value)
            joined[name] = Sum(own.total + more.total, own.weight + more.weight)
    return joined
