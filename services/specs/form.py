"""A specification's JSON Schema with what a form needs besides: units of numbers, and which part a field belongs to."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

UNITS = {"_s": "s", "_bytes": "bytes", "_rad": "rad", "_epochs": "epochs", "_steps": "steps"}
"""By the ending of a field's name."""


def schema_of(model: type[BaseModel], groups: Mapping[str, str]) -> dict[str, Any]:
    """Return a specification's schema; fields have `x-unit` where they have one, those at the top also `x-group`.

    Args:
        model: the specification.
        groups: heading by field; the others are under `more`.
    """
    schema = model.model_json_schema(mode="validation")
    for part in (schema, *schema.get("$defs", {}).values()):
        for name, field in part.get("properties", {}).items():
            unit = next((unit for ending, unit in UNITS.items() if name.endswith(ending)), None)
            if unit is not None:
                field["x-unit"] = unit
    for name, field in schema["properties"].items():
        field["x-group"] = groups.get(name, "more")
    return schema
