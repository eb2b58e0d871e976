"""The task protocol: a model, data, a loss and, if wanted, metrics; the service does the rest.

The rest is: samplers, DDP, devices, autocast, the optimizer's passes, the search for alpha*, checkpoints, resume.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from xsam.workers.sdk.sums import Collected, Sum, Value

Loss = Tensor | tuple[Tensor, Mapping[str, Value]]


class Task(Protocol):
    """What a class of a team's own provides. It need not inherit from this; the optional methods may be left out.

    It is called with the job's `task.options` as keyword arguments, and with those of `data_root` (the folder of the
    datasets), `model_root` (that of pretrained weights), `seed` and `num_threads` that it takes.

    Optional:
        collate(items): the batch of a list of items; by default torch's `default_collate`.
        evaluate(model, batch) -> dict[str, Sum | Collected]: by default what the loss names beside itself. `loss`
            among the names replaces the loss as evaluated.
        metrics(collected) -> dict[str, float]: gets `{name: (prediction, target)}` of whatever `evaluate` collected,
            all batches of all ranks, on the CPU.
        param_groups(model) -> list[dict]: groups for the optimizer; beside the base optimizer's options they take
            `lr_scale` and `perturb` (False: SAM's ascent leaves them where they are). See `groups`.
        on_epoch(model, epoch): before the first step of each epoch (from 1), and again where a run goes on inside one.
        length(batch) -> int: examples or tokens, the weight of a batch; by default its first tensor's length.
        best: `"name:max"` or `"name:min"`, what `best` means of this task; by default `"loss:min"`.
        steps_per_epoch: for iterable data without a length.
    """

    def model(self) -> nn.Module:
        """Return the network, on the CPU; torch is seeded before."""

    def train_data(self) -> Any:
        """Return a map-style dataset, or an iterable one.

        Map-style: `len()` and `[index]`; a run that was interrupted gets the same batches, random augmentation
        included: Python's, numpy's and torch's generators are seeded before each batch. Iterable: `iter()` gives
        the examples of one epoch, in an order that may depend on nothing but the epoch (told to `set_epoch`, where
        there is one); a run that goes on inside an epoch reads and drops what it had used.
        """

    def eval_data(self) -> Any:
        """Return a dataset, or several by name: the first one's metrics have plain names, others `set/name`."""

    def loss(self, model: nn.Module, batch: Any) -> Loss:
        """Return the mean loss over the batch, and what else to measure of it by name.

        Called in every pass of a step, with the same batch: it must not change what the next call returns, and
        leaves `backward()` to the optimizer. `model` is called, no other method of it: it may be wrapped.
        """


class FunctionTask:
    """A task of plain functions; see `task`."""

    def __init__(
        self,
        *,
        model: Callable[[], nn.Module],
        data: Callable[[Path | None], tuple[Any, Any]],
        loss: Callable[[nn.Module, Any], Loss],
        metrics: Mapping[str, Callable[[nn.Module, Any], Sum | Collected]],
        best: str,
    ) -> None:
        self._make_model = model
        self._read_data = data
        self._loss = loss
        self._metrics = metrics
        self.best = best
        self.data_root: Path | None = None
        self._data: tuple[Any, Any] | None = None

    def at(self, data_root: Path | None) -> "FunctionTask":
        """Return this task with its data below a folder."""
        placed = copy.copy(self)
        placed.data_root, placed._data = data_root, None
        return placed

    def model(self) -> nn.Module:
        """Return the network."""
        return self._make_model()

    def train_data(self) -> Any:
        """Return the training part."""
        return self._parts()[0]

    def eval_data(self) -> Any:
        """Return the evaluation part."""
        return self._parts()[1]

    def loss(self, model: nn.Module, batch: Any) -> Loss:
        """Return the mean loss over the batch."""
        return self._loss(model, batch)

    def evaluate(self, model: nn.Module, batch: Any) -> dict[str, Sum | Collected]:
        """Return every metric of a batch."""
        return {name: measure(model, batch) for name, measure in self._metrics.items()}

    def _parts(self) -> tuple[Any, Any]:
        if self._data is None:
            self._data = self._read_data(self.data_root)
        return self._data


def task(
    *,
    model: Callable[[], nn.Module],
    data: Callable[[Path | None], tuple[Any, Any]],
    loss: Callable[[nn.Module, Any], Loss],
    metrics: Mapping[str, Callable[[nn.Module, Any], Sum | Collected]] | None = None,
    best: str = "loss:min",
) -> FunctionTask:
    """Return a task of plain functions, for `task: {target: "module:name"}`.

    Args:
        model: makes the network.
        data: gets the folder of the datasets; returns training and evaluation data. Tuples of tensors of equal
            length will do.
        loss: as `Task.loss`.
        metrics: each of a model and a batch, as `Task.evaluate`'s entries.
        best: as `Task.best`.
    """
    return FunctionTask(model=model, data=data, loss=loss, metrics=metrics or {}, best=best)


def groups(
    model: nn.Module, *, no_perturb: Sequence[str] = (), lr_scale: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """Return param groups by parts of parameters' names, for `Task.param_groups`.

    Args:
        model: whose parameters to group.
        no_perturb: a parameter whose name contains one of these is not moved by the ascent.
        lr_scale: by part of a name; the first that fits multiplies the learning rate.

    Raises:
        ValueError: a part fits no parameter.
    """
    scales = dict(lr_scale or {})
    names = [name for name, _ in model.named_parameters()]
    for part in [*no_perturb, *scales]:
        if not any(part in name for name in names):
            raise ValueError(f"groups(): no parameter's name contains {part!r}; there are {', '.join(names[:20])}")
    found: dict[tuple[bool, float], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        is_perturbed = not any(part in name for part in no_perturb)
        scale = next((factor for part, factor in scales.items() if part in name), 1.0)
        found.setdefault((is_perturbed, scale), []).append(parameter)
    return [{"params": params, "perturb": perturb, "lr_scale": scale} for (perturb, scale), params in found.items()]
