"""A job's own task, in place of a model and a dataset that the service knows by name."""

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, StringConstraints, model_validator

from xsam.services.specs.base import PLAIN, Options, Spec, field_error
from xsam.services.specs.model import Target

METRIC_NAME_PATTERN = r"[A-Za-z_][\w./-]{0,62}"
MetricName = Annotated[str, StringConstraints(pattern=rf"^{METRIC_NAME_PATTERN}$")]
Best = Annotated[str, StringConstraints(pattern=rf"^{METRIC_NAME_PATTERN}:(max|min)$")]
"""`name:max` or `name:min`."""


BundleId = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
"""A bundle's name: the SHA-256 of its content."""
SourceRoot = Annotated[
    str,
    StringConstraints(pattern=r"^(\.|[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*)$", max_length=200),
]
"""A folder inside a bundle: no absolute path, no '..'."""


class Code(Spec):
    """A folder that the job brings, named by its content: the same name is the same code for ever."""

    bundle: BundleId
    root: SourceRoot = "."
    """Folder inside of it from which Python imports."""


class Requirements(Spec):
    """Packages that the job's code needs beyond those of the service, every version and hash of them."""

    lock: Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
    """Name of the lock that the service made of the requirements; the same name is the same packages for ever."""


_PLACEHOLDER = re.compile(r"\{([A-Za-z_][\w.]*)\}")
Argument = Annotated[str, StringConstraints(max_length=1000), PLAIN]


class Entrypoint(Spec):
    """A script of the job's code, run on each rank with torchrun's variables; `train.py` or `package.module:function`.

    As a list it has arguments, in which `{optimizer.base.lr}` stands for that field of the job.
    """

    file: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)*\.py$", max_length=200)]
    """Below the code's root."""
    function: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]\w*$", max_length=100)] | None = None
    """Called without arguments; by default the file is run as a script."""
    args: Annotated[tuple[Argument, ...], Field(max_length=100)] = ()

    @model_validator(mode="before")
    @classmethod
    def _read_short_forms(cls, given: Any) -> Any:
        words = given.split() if isinstance(given, str) else given
        if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
            return given
        if words[0] in ("python", "python3") and len(words) > 1:
            words = words[1:]
        name, *args = words
        if ":" in name and not name.endswith(".py"):
            module, _, function = name.partition(":")
            return {"file": module.replace(".", "/") + ".py", "function": function, "args": args}
        return {"file": name, "args": args}

    def placeholders(self) -> set[str]:
        """Return the fields that the arguments name."""
        return {name for arg in self.args for name in _PLACEHOLDER.findall(arg)}

    def filled(self, document: Mapping[str, Any]) -> list[str]:
        """Return the arguments with the fields of a job's document filled in.

        Raises:
            KeyError: it names a field that the document does not have.
        """
        return [_PLACEHOLDER.sub(lambda found: _looked_up(document, found[1]), arg) for arg in self.args]


def _looked_up(document: Mapping[str, Any], path: str) -> str:
    value: Any = document
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            raise KeyError(path)
        value = value[name]
    return value if isinstance(value, str) else json.dumps(value)


DatasetFolder = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)*$", max_length=200)
]


class Part(Spec):
    """Something of the team's own that is made by name: `target(**options)`."""

    target: Target
    options: Options = Field(default_factory=dict)


class TaskData(Spec):
    """Data of a project that is a task without a class for it: one of `target` and `folder`."""

    target: Target | None = None
    """A LightningDataModule; for a Hugging Face model a callable that returns datasets by split."""
    options: Options = Field(default_factory=dict)
    folder: DatasetFolder | None = None
    """For a Hugging Face model: what `save_to_disk` of `datasets` wrote, below the datasets' root."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.target is None) == (self.folder is None):
            raise field_error("task.data", "task.data needs one of target and folder")
        return self


class OwnTask(Spec):
    """Model, data, loss and metrics of the team's own: `target(**options)` returns a task of `xsam.sdk`.

    Or a project as it is: a LightningModule with its `data`, or a class of Hugging Face's models with `data` and
    `collate`.
    """

    target: Target
    options: Options = Field(default_factory=dict)
    data: TaskData | None = None
    """Of a LightningModule or a Hugging Face model; other tasks have their own."""
    collate: Part | None = None
    """Of a Hugging Face model: a collator's class, or a function; a `tokenizer` is named by its folder."""
