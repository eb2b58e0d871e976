"""A team's own task, as `xsam.sdk` describes it, made ready for a run: built, checked, its gaps filled."""

import inspect
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from xsam.services.specs.job import JobSpec
from xsam.workers.messages import RankContext
from xsam.workers.sdk.sums import Collected, Sum, Value, as_sum, mean
from xsam.workers.sdk.task import FunctionTask
from xsam.workers.training.data.batches import Collate, EvalFeed, TrainFeed, length_of
from xsam.workers.training.data.own_feeds import eval_feed_of, train_feed_of
from xsam.workers.training.errors import TargetError
from xsam.workers.training.random_state import derive_seed, seed_everything
from xsam.workers.training.targets import load_target
from xsam.workers.training.tasks.goal import Goal
from xsam.workers.training.tasks.hugging_face_task import HuggingFaceTask, hugging_face_task, is_hugging_face_model
from xsam.workers.training.tasks.lightning_task import LightningTask, is_lightning_module

REQUIRED = ("model", "train_data", "eval_data", "loss")
MAIN_SET = "eval"
_T = TypeVar("_T")


class OwnTask:
    """A job's `task`.

    Args:
        spec: the job.
        context: this rank.

    Raises:
        TargetError: the target can't be had or is no task.
    """

    def __init__(self, spec: JobSpec, context: RankContext) -> None:
        seed_everything(derive_seed(spec.seed, "task"))
        self._spec = spec
        self._context = context
        self._own = load_task(spec, context)
        self._name = "task" if spec.task is None else f"task {spec.task.target}"
        self.goal = self._goal()
        self.loss_limit = math.inf
        self.notes: tuple[str, ...] = tuple(getattr(self._own, "notes", ()))
        self._num_trainable: int | None = None

    def model(self) -> nn.Module:
        """Return the network."""
        model = self._own.model()
        if not isinstance(model, nn.Module):
            raise TargetError(f"{self._name}: model() returned a {type(model).__name__}; it must be an nn.Module")
        if not any(p.requires_grad for p in model.parameters()):
            raise TargetError(f"{self._name}: model() returned a network without parameters to train")
        return model

    def param_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Return the task's groups, or all parameters as one."""
        make = getattr(self._own, "param_groups", None)
        if make is None:
            return [{"params": list(model.parameters())}]
        groups = [dict(group) for group in make(model)]
        for group in groups:
            group["params"] = list(group["params"])
        return groups

    def train_feed(self) -> TrainFeed:
        """Return the training batches."""
        spec, context = self._spec, self._context
        data = self._checked_data("train_data", self._own.train_data())
        return train_feed_of(data, spec, context, self._collate())

    def eval_feeds(self) -> dict[str, EvalFeed]:
        """Return the evaluation sets by name."""
        data = self._own.eval_data()
        sets = data if isinstance(data, Mapping) else {MAIN_SET: data}
        if not sets:
            raise TargetError(f"{self._name}: eval_data() returned no set")
        spec, context = self._spec, self._context
        return {
            str(name): eval_feed_of(self._checked_data("eval_data", one), spec, context, self._collate())
            for name, one in sets.items()
        }

    def on_epoch(self, model: nn.Module, epoch: int) -> None:
        """Let the task prepare its model.

        Raises:
            TargetError: it changed which parameters are trained, which several workers have agreed on before.
        """
        prepare = getattr(self._own, "on_epoch", None)
        if prepare is None:
            return
        before = [p.requires_grad for p in model.parameters()]
        prepare(model, epoch)
        if self._context.world_size > 1 and before != [p.requires_grad for p in model.parameters()]:
            raise TargetError(
                f"{self._name}: on_epoch() froze or unfroze parameters; with several workers set their learning "
                "rate by param_groups instead, or use one worker"
            )

    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, Mapping[str, Value]]:
        """Return the mean loss over a batch, and what else the task measures of it."""
        given = self._own.loss(model, batch)
        loss, values = given if isinstance(given, tuple) else (given, {})
        if not isinstance(loss, Tensor) or loss.ndim:
            what = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
            raise TargetError(f"{self._name}: loss() returned {what}; it must be a scalar tensor, the batch's mean")
        return loss.float(), values

    def length(self, batch: Any) -> float:
        """Return what the task says of a batch, by default its examples."""
        own = getattr(self._own, "length", None)
        return float(own(batch) if own is not None else length_of(batch))

    def evaluate(self, model: nn.Module, batch: Any) -> Mapping[str, Sum | Collected]:
        """Return what the task measures of a batch, and its loss."""
        evaluate = getattr(self._own, "evaluate", None)
        measured: dict[str, Sum | Collected] = {} if evaluate is None else dict(evaluate(model, batch))
        for name, value in measured.items():
            if not isinstance(value, Sum | Collected):
                raise TargetError(
                    f"{self._name}: evaluate() gave {name!r} as a {type(value).__name__}; allowed are "
                    "mean(...), ratio(...) and collect(...) of xsam.sdk"
                )
        if "loss" in measured:
            return measured
        weight = self.length(batch)
        loss, values = self.loss(model, batch)
        measured["loss"] = mean(loss, weight)
        if evaluate is None:
            measured |= {name: as_sum(value, weight) for name, value in values.items()}
        return measured

    def metrics(self, collected: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, float]:
        """Return what the task makes of everything it has collected."""
        make = getattr(self._own, "metrics", None)
        if make is None:
            raise TargetError(f"{self._name}: evaluate() collects {', '.join(collected)}, but there is no metrics()")
        return {str(name): float(value) for name, value in make(dict(collected)).items()}

    def _goal(self) -> Goal:
        text = self._spec.best or getattr(self._own, "best", None) or "loss:min"
        try:
            return Goal.parse(text)
        except (ValueError, AttributeError) as e:
            raise TargetError(f"{self._name}: {e}") from e

    def _collate(self) -> Collate | None:
        return getattr(self._own, "collate", None)

    def _checked_data(self, method: str, data: Any) -> Any:
        if isinstance(data, tuple) and data and all(isinstance(part, Tensor) for part in data):
            return torch.utils.data.TensorDataset(*data)
        is_map = hasattr(data, "__getitem__") and hasattr(data, "__len__")
        if not is_map and not hasattr(data, "__iter__"):
            raise TargetError(
                f"{self._name}: {method}() returned a {type(data).__name__}; allowed are map-style datasets (with "
                "__len__ and __getitem__), iterable ones, and tuples of tensors"
            )
        return data


def load_task(spec: JobSpec, context: RankContext) -> Any:
    """Return the object with the task's methods.

    Raises:
        TargetError: the target can't be had, does not take the job's options, or lacks a method.
    """
    if spec.task is None:
        raise TargetError("the job has no task")
    target, options = spec.task.target, spec.task.options
    found = load_target(target, context)
    if isinstance(found, FunctionTask):
        task: Any = found.at(context.dataset_root)
    elif callable(found) and not is_hugging_face_model(found):
        task = _made(found, target, options, spec, context)
    else:
        task = found
    adapted = _adapted(task, spec, context)
    if adapted is not None:
        return adapted
    missing = [name for name in REQUIRED if not callable(getattr(task, name, None))]
    if missing:
        raise TargetError(
            f"task.target {target} gives a {type(task).__name__} without {', '.join(f'{name}()' for name in missing)}; "
            f"a task has {', '.join(REQUIRED)}"
        )
    return task


def _adapted(found: Any, spec: JobSpec, context: RankContext) -> LightningTask | HuggingFaceTask | None:
    """Return the task of a project that is taken as it is; None for a task."""
    if is_lightning_module(found):
        return LightningTask(found, _lightning_data(found, spec, context))
    if is_hugging_face_model(found):
        return hugging_face_task(found, spec.task, _offered(spec, context), partial(load_target, context=context))
    if spec.task is not None and (spec.task.data is not None or spec.task.collate is not None):
        raise TargetError(
            f"task.data and task.collate are for a LightningModule or a Hugging Face model; {spec.task.target} gives a "
            f"{type(found).__name__}, which has data of its own"
        )
    return None


def _lightning_data(module: Any, spec: JobSpec, context: RankContext) -> Any:
    """Return the DataModule that the job names, or the module where it has the DataLoaders itself."""
    data = None if spec.task is None else spec.task.data
    if data is None:
        return module
    if data.target is None:
        raise TargetError(
            "task.data.folder is for a Hugging Face model; name the LightningDataModule: task.data.target"
        )
    return _made(load_target(data.target, context, needs_call=True), data.target, data.options, spec, context)


def _offered(spec: JobSpec, context: RankContext) -> dict[str, Any]:
    """Return what a target may take besides its options."""
    return {
        "data_root": context.dataset_root,
        "model_root": context.model_root,
        "seed": spec.seed,
        "num_threads": context.num_threads,
    }


def _made(make: Callable[..., _T], target: str, options: Mapping[str, Any], spec: JobSpec, context: RankContext) -> _T:
    offered = _offered(spec, context)
    try:
        signature = inspect.signature(make)
    except (TypeError, ValueError):
        return make(**options)
    given = {name: value for name, value in offered.items() if name in signature.parameters} | dict(options)
    try:
        signature.bind(**given)
    except TypeError as e:
        raise TargetError(f"task.options of {target}: {e}; it takes {signature}") from e
    return make(**given)
