"""Answers about the service itself; answers about jobs and measurements are the schemas of `services`."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


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
