"""A LightningModule with its LightningDataModule, as they are, as a task; their code alone loads Lightning."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from xsam.workers.sdk.sums import Collected, Sum, Value, as_sum, mean
from xsam.workers.training.data.batches import length_of
from xsam.workers.training.errors import TargetError

_HOMES = ("lightning.pytorch.", "pytorch_lightning.")
_REPLACED = (
    "configure_optimizers() is replaced by the job's optimizer and schedule",
    "the DataLoaders give their dataset and collate_fn; batch size, order and workers are the job's",
)


def is_lightning_module(found: Any) -> bool:
    """Return whether an object is a LightningModule, or its class."""
    bases = found.__mro__ if isinstance(found, type) else type(found).__mro__
    return any(one.__name__ == "LightningModule" and one.__module__.startswith(_HOMES) for one in bases)


class LightningTask:
    """Runs `training_step` as the loss of every pass; what `validation_step` logs are the metrics.

    Args:
        module: the LightningModule.
        data: the LightningDataModule, or the module itself where it has the DataLoaders.

    Raises:
        TargetError: it steps its optimizers itself, or lacks a step or a DataLoader.
    """

    def __init__(self, module: Any, data: Any) -> None:
        self._name = type(module).__name__
        if not module.automatic_optimization:
            raise TargetError(
                f"{self._name} has automatic_optimization off and steps its optimizers itself; here the service does: "
                "return the loss from training_step, or run your own loop as a script (`entrypoint`)"
            )
        for owner, method in ((module, "training_step"), (data, "train_dataloader"), (data, "val_dataloader")):
            if not _has_own(owner, method):
                raise TargetError(f"{type(owner).__name__} has no {method}()")
        module.automatic_optimization = False
        self._module = _steppable(module)
        self._data = data
        self._loaders: list[Any] | None = None
        self.notes = _REPLACED
        self.best = "loss:min"

    def model(self) -> nn.Module:
        """Return the module, whose parameters keep their names."""
        prepare = getattr(self._module, "configure_model", None)
        if prepare is not None:
            prepare()
        found: nn.Module = self._module
        return found

    def train_data(self) -> Any:
        """Return the dataset of the training DataLoader."""
        return self._all_loaders()[0].dataset

    def eval_data(self) -> Any:
        """Return the datasets of the validation DataLoaders: the first is `val`, others `val-1` and so on."""
        loaders = self._all_loaders()[1:]
        return {"val" if number == 0 else f"val-{number}": loader.dataset for number, loader in enumerate(loaders)}

    def collate(self, items: Any) -> Any:
        """Return the batch that the training DataLoader would make."""
        return self._all_loaders()[0].collate_fn(items)

    def on_epoch(self, model: nn.Module, epoch: int) -> None:
        """Tell the module its epoch, which Lightning counts from 0."""
        self._module.xsam_epoch = epoch - 1
        self._module.on_train_epoch_start()

    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, Mapping[str, Value]]:
        """Return what `training_step` returns and has logged."""
        call = _Call("training_step", batch)
        return self._loss_of(model(call), "training_step"), _values(call.logged)

    def evaluate(self, model: nn.Module, batch: Any) -> dict[str, Sum | Collected]:
        """Return what `validation_step` logs of a batch, and its loss if it returns one or logs `val_loss`."""
        if not _has_own(self._module, "validation_step"):
            return {}
        call = _Call("validation_step", batch)
        returned = model(call)
        weight = float(length_of(batch))
        measured: dict[str, Sum | Collected] = {
            name: as_sum(value, size or weight) for name, (value, size) in call.logged.items()
        }
        if isinstance(returned, Tensor | Mapping):
            loss = mean(self._loss_of(returned, "validation_step"), weight)
        else:
            loss = measured.get("val_loss", measured.get("loss"))  # type: ignore[assignment]
        return measured | ({} if loss is None else {"loss": loss})

    def _loss_of(self, returned: Any, step: str) -> Tensor:
        loss = returned.get("loss") if isinstance(returned, Mapping) else returned
        if not isinstance(loss, Tensor):
            raise TargetError(
                f"{self._name}.{step}() returned a {type(returned).__name__}; allowed are the loss as a tensor, and a "
                "dict with it as 'loss'"
            )
        return loss

    def _all_loaders(self) -> list[Any]:
        """Return the training DataLoader and then those of validation."""
        if self._loaders is None:
            self._data.prepare_data()
            self._data.setup("fit")
            val = self._data.val_dataloader()
            found = [self._data.train_dataloader(), *(val if isinstance(val, list | tuple) else [val])]
            for one in found:
                if not isinstance(one, torch.utils.data.DataLoader):
                    raise TargetError(f"{type(self._data).__name__} gives a {type(one).__name__}, no DataLoader")
            self._loaders = found
        return self._loaders


@dataclass(slots=True)
class _Call:
    """A step that `forward` is to run: DDP watches what goes through `forward` alone."""

    step: str
    batch: Any
    logged: dict[str, tuple[Any, float | None]] = field(default_factory=dict)


def _has_own(owner: Any, method: str) -> bool:
    """Return whether a class of the user's has a method; Lightning's own ones refuse or do nothing."""
    found = getattr(type(owner), method, None)
    return found is not None and not found.__module__.startswith(_HOMES)


def _values(logged: Mapping[str, tuple[Any, float | None]]) -> dict[str, Value]:
    return {name: value if size is None else as_sum(value, size) for name, (value, size) in logged.items()}


class _Steps:
    """What a LightningModule gets in front of its own class: only what the service has to hear goes another way."""

    xsam_call: _Call | None = None
    xsam_epoch = 0

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run a step, or what the user's class runs."""
        if not args or not isinstance(args[0], _Call):
            return super().forward(*args, **kwargs)  # type: ignore[misc]
        call = args[0]
        self.xsam_call = call
        try:
            return getattr(self, call.step)(call.batch, 0)
        finally:
            self.xsam_call = None

    def log(self, name: str, value: Any, *args: Any, batch_size: int | None = None, **kwargs: Any) -> None:
        """Keep a value; one that is no number of this batch is refused."""
        if not isinstance(value, Tensor | float | int):
            raise TargetError(
                f"self.log({name!r}) got a {type(value).__name__}; log a number of the batch, such as "
                "self.log('val_acc', self.acc(logits, y)): values are averaged over examples"
            )
        if self.xsam_call is not None:
            self.xsam_call.logged[name] = (value, batch_size)

    def log_dict(self, dictionary: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        """Keep several values."""
        for name, value in dictionary.items():
            self.log(name, value, *args, **kwargs)

    @property
    def current_epoch(self) -> int:
        """The epoch, from 0."""
        return self.xsam_epoch


def _steppable(module: Any) -> Any:
    """Put `_Steps` in front of a module's class; its parameters keep their names."""
    base = type(module)
    module.__class__ = type(base.__name__, (_Steps, base), {"__module__": base.__module__})
    return module
