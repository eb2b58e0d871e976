"""A Hugging Face model with a dataset folder and a collator, by their names, as a task."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xsam.workers.sdk.sums import Collected, Sum, mean, ratio
from xsam.workers.training.data.batches import length_of
from xsam.workers.training.errors import TargetError

_EVAL_SPLITS = ("validation", "eval", "test")
_BASES = ("PreTrainedModel", "_BaseAutoModelClass")


def is_hugging_face_model(found: Any) -> bool:
    """Return whether an object is a model of transformers, or its class, an Auto class included."""
    bases = found.__mro__ if isinstance(found, type) else type(found).__mro__
    return any(one.__name__ in _BASES and one.__module__.startswith("transformers.") for one in bases)


class HuggingFaceTask:
    """`model(**batch).loss` is the loss; accuracy is measured where labels are classes.

    Args:
        make: returns the model.
        splits: datasets by name: `train`, and `validation`, `eval` or `test`.
        collate: makes a batch of a list of items.
    """

    best = "loss:min"

    def __init__(self, make: Callable[[], nn.Module], splits: Mapping[str, Any], collate: Callable[[Any], Any]) -> None:
        self._make = make
        self._splits = splits
        self.collate = collate
        missing = [] if "train" in splits else ["train"]
        missing += [] if any(name in splits for name in _EVAL_SPLITS) else [" or ".join(_EVAL_SPLITS)]
        if missing:
            raise TargetError(
                f"task.data has {', '.join(map(str, splits)) or 'nothing'}; it needs {', '.join(missing)}"
            )

    def model(self) -> nn.Module:
        """Return the model."""
        return self._make()

    def train_data(self) -> Any:
        """Return the split `train`."""
        return self._splits["train"]

    def eval_data(self) -> Any:
        """Return the splits to evaluate, the first one's metrics by plain names."""
        return {name: self._splits[name] for name in _EVAL_SPLITS if name in self._splits}

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the model's own loss."""
        return self._loss_of(model(**batch))

    def evaluate(self, model: nn.Module, batch: Any) -> dict[str, Sum | Collected]:
        """Return the loss, and accuracy where labels are one class each."""
        output = model(**batch)
        labels, logits = batch.get("labels"), getattr(output, "logits", None)
        measured: dict[str, Sum | Collected] = {"loss": mean(self._loss_of(output), float(length_of(batch)))}
        if isinstance(labels, Tensor) and isinstance(logits, Tensor) and _are_classes(labels, logits):
            measured["accuracy"] = ratio((logits.argmax(-1) == labels).sum(), len(labels))
        return measured

    def _loss_of(self, output: Any) -> Tensor:
        loss = getattr(output, "loss", None)
        if not isinstance(loss, Tensor):
            raise TargetError(
                "the model returned no loss: a batch needs 'labels' (name the column so, or use a collator)"
            )
        return loss


def hugging_face_task(found: Any, task: Any, offered: Mapping[str, Any], load: Callable[[str], Any]) -> HuggingFaceTask:
    """Return the task of a model class, or of a made model, with the data and the collator that a job names.

    Args:
        found: the class or the model.
        task: the job's `task`.
        offered: what the run offers: `data_root`, `model_root`.
        load: returns what a target names.
    """
    root = offered.get("model_root") or offered["data_root"]
    return HuggingFaceTask(
        _maker(found, dict(task.options), root),
        _splits(task.data, offered, load),
        _collator(task.collate, root, load),
    )


def _maker(found: Any, options: dict[str, Any], root: Path | None) -> Callable[[], nn.Module]:
    if isinstance(found, nn.Module):
        model: nn.Module = found
        return lambda: model
    pretrained, config = options.pop("pretrained", None), options.pop("config", None)
    if (pretrained is None) == (config is None):
        raise TargetError(
            f"task.options of {found.__name__} are {', '.join(options) or 'empty'}; give one of 'pretrained' (a folder "
            "below the operator's model folder) and 'config' (the fields of its configuration)"
        )
    if pretrained is not None:
        folder = _below(root, pretrained)
        return lambda: found.from_pretrained(folder, local_files_only=True, **options)
    made = _config_of(found, config | options)
    return lambda: found.from_config(made) if hasattr(found, "from_config") else found(made)


def _config_of(found: Any, fields: dict[str, Any]) -> Any:
    try:
        if getattr(found, "config_class", None) is not None:
            return found.config_class(**fields)
        return importlib.import_module("transformers").AutoConfig.for_model(**fields)
    except (TypeError, ValueError) as e:
        raise TargetError(f"task.options.config: {e}") from e


def _splits(data: Any, offered: Mapping[str, Any], load: Callable[[str], Any]) -> Mapping[str, Any]:
    if data is None:
        raise TargetError("a Hugging Face model needs task.data: {folder: ...}, or {target: ...} that returns splits")
    if data.folder is not None:
        splits = _datasets().load_from_disk(str(_below(offered["data_root"], data.folder)))
    else:
        make = load(data.target)
        taken = inspect.signature(make).parameters
        splits = make(**{name: value for name, value in offered.items() if name in taken}, **data.options)
    if not isinstance(splits, Mapping):
        raise TargetError(f"task.data gives a {type(splits).__name__}; it must be datasets by name: train, test")
    return splits


def _datasets() -> Any:
    try:
        return importlib.import_module("datasets")
    except ImportError as e:
        raise TargetError("task.data.folder needs the package datasets: add it to `requirements`") from e


def _collator(collate: Any, root: Path | None, load: Callable[[str], Any]) -> Callable[[Any], Any]:
    if collate is None:
        found: Callable[[Any], Any] = importlib.import_module("transformers").default_data_collator
        return found
    options = dict(collate.options)
    if isinstance(options.get("tokenizer"), str):
        folder = _below(root, options["tokenizer"])
        auto = importlib.import_module("transformers").AutoTokenizer
        options["tokenizer"] = auto.from_pretrained(folder, local_files_only=True)
    made = load(collate.target)
    result: Callable[[Any], Any] = made(**options) if isinstance(made, type) else made
    return result


def _below(root: Path | None, name: Any) -> Path:
    path = Path(str(name))
    if root is None or path.is_absolute() or ".." in path.parts or not (root / path).is_dir():
        raise TargetError(f"there is no folder {str(name)!r} below {root}")
    return root / path


def _are_classes(labels: Tensor, logits: Tensor) -> bool:
    is_whole = labels.dtype in (torch.int64, torch.int32, torch.int16, torch.uint8)
    return is_whole and labels.ndim == 1 and logits.ndim == 2
