"""Specifications as people write them: what differs from the defaults, and YAML."""

from collections.abc import Mapping
from typing import Any

import yaml

from xsam.services.errors import InvalidRequestError
from xsam.services.specs.base import Spec

_TAGS = ("name", "variant", "type")
"""Fields that say which of several kinds a part is; without them the rest could not be read."""


def short(spec: Spec) -> dict[str, Any]:
    """Return a specification without what is a default anyway."""
    full = spec.model_dump(mode="json")
    kept = spec.model_dump(mode="json", exclude_defaults=True)
    return {name: _tagged(value, full[name]) for name, value in kept.items()}


def as_yaml(document: Mapping[str, Any]) -> str:
    """Return a document as YAML that a person would write."""
    text: str = yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True, default_flow_style=False, width=100)
    return text


def of_yaml(text: str, field: str) -> dict[str, Any]:
    """Return the document that a text is.

    Raises:
        InvalidRequestError: it is none, which is said of this field.
    """
    try:
        given = yaml.safe_load(text) if text.strip() else {}
    except yaml.YAMLError as e:
        raise InvalidRequestError(f"{field} is not YAML: {' '.join(str(e).split())}", field=field) from e
    if not isinstance(given, dict):
        raise InvalidRequestError(f"{field} holds {type(given).__name__}; write it as `field: value`", field=field)
    return given


def _tagged(short_value: Any, full: Any) -> Any:
    if isinstance(short_value, list) and isinstance(full, list):
        return [_tagged(*pair) for pair in zip(short_value, full, strict=True)]
    if not isinstance(short_value, dict) or not isinstance(full, dict):
        return short_value
    tags = {tag: full[tag] for tag in _TAGS if isinstance(full.get(tag), str)}
    return {**tags, **{name: _tagged(value, full.get(name)) for name, value in short_value.items()}}
