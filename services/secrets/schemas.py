"""What the API takes and shows of secrets; no answer has a value."""

from datetime import datetime
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field, StringConstraints

from xsam.services.schemas import Read
from xsam.services.specs.base import Spec

LEAST_CHARS = 8
"""A shorter value would be taken out of log lines where it is none."""
SecretValue = Annotated[
    str,
    StringConstraints(pattern=r"^[!-~][ -~]{6,}[!-~]$", min_length=LEAST_CHARS, max_length=4096),
    Field(repr=False, json_schema_extra={"format": "password", "writeOnly": True}),
]
"""One line of printable ASCII: what is taken out of logs must stand on one line there."""


class SecretWrite(Spec):
    """A secret's value."""

    model_config = ConfigDict(hide_input_in_errors=True)
    hides_values: ClassVar[bool] = True

    value: SecretValue


class SecretRead(Read):
    """A secret without its value, which nothing shows again."""

    team: str
    name: str
    set_by: str
    """Who set it last."""
    set_at: datetime


class SecretsRead(Read):
    """A team's secrets by name, without their values."""

    items: list[SecretRead]
