"""A job's own task, in place of a model and a dataset that the service knows by name."""

from typing import Annotated

from pydantic import Field, StringConstraints

from xsam.services.specs.base import Options, Spec
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


class OwnTask(Spec):
    """Model, data, loss and metrics of the team's own: `target(**options)` returns a task of `xsam.sdk`."""

    target: Target
    options: Options = Field(default_factory=dict)
