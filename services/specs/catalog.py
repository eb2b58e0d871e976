"""What a specification may name, for people and forms to choose from: descriptions and JSON Schemas."""

import inspect
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from xsam.services.specs.base import Spec
from xsam.services.specs.dataset import DATASETS
from xsam.services.specs.model import MODELS
from xsam.services.specs.optimizer import OPTIMIZERS


class CatalogEntry(BaseModel):
    """One name and what may be said with it."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    name: str
    """Goes into the specification as `name` (of an optimizer: `variant`)."""
    description: str
    options_schema: dict[str, Any]
    """JSON Schema of this part of a specification, its name included."""


class Catalog(BaseModel):
    """Everything that can be named in one place of a specification."""

    items: list[CatalogEntry]


def optimizers() -> Catalog:
    """Return the optimizer variants; the schema of each holds the base optimizers below it."""
    return _catalog(OPTIMIZERS)


def models() -> Catalog:
    """Return the networks."""
    return _catalog(MODELS)


def datasets() -> Catalog:
    """Return the datasets."""
    return _catalog(DATASETS)


def _catalog(parts: Mapping[str, type[Spec]]) -> Catalog:
    return Catalog(
        items=[
            CatalogEntry(name=name, description=inspect.getdoc(part) or "", options_schema=part.model_json_schema())
            for name, part in parts.items()
        ]
    )
