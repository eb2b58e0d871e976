"""What the service says about itself: its release, that it is alive, that it can do its work."""

from importlib.metadata import version
from typing import Literal

from pydantic import BaseModel, ConfigDict

from xsam.services.errors import ServiceError

VERSION = version("xsam")
"""The release of this code."""


class NotReadyError(ServiceError):
    """The service can't do its work yet, or not at present."""

    code = "not_ready"


class Health(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"
    version: str


class Readiness(BaseModel):
    """Jobs can be submitted and will be run."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    status: Literal["ready"] = "ready"
    dispatchers: list[str]
    """The dispatchers that gave a sign of life recently (`host:pid:start`)."""
