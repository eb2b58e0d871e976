"""A job's own task, in place of a model and a dataset that the service knows by name."""

from typing import Annotated

from pydantic import Field, StringConstraints

from xsam.services.specs.base import Options, Spec
from xsam.services.specs.model import Target

METRIC_NAME_PATTERN = r"[A-Za-z_][\w./-]{0,62}"
MetricName = Annotated[str, StringConstraints(pattern=rf"^{METRIC_NAME_PATTERN}$")]
Best = Annotated[str, StringConstraints(pattern=rf"^{METRIC_NAME_PATTERN}:(max|min)$")]
"""`name:max` or `name:min`."""


class OwnTask(Spec):
    """Model, data, loss and metrics of the team's own: `target(**options)` returns a task of `xsam.sdk`."""

    target: Target
    options: Options = Field(default_factory=dict)
