"""Pydantic's errors as sentences about fields: clean paths, the value given, what is allowed."""

import math
import re
from collections.abc import Iterable, Mapping
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, JsonValue
from pydantic.fields import FieldInfo

from xsam.api.http.problems import FieldError

_LONGEST_VALUE_CHARS = 200
_LARGEST_SAFE_INT = 2**53
_INDEXED = (dict, list, tuple)


def field_errors(errors: Iterable[Mapping[str, Any]], root: type[BaseModel]) -> list[FieldError]:
    """Translate pydantic's errors, one entry per field.

    Args:
        errors: as `ValidationError.errors()` gives them, the locations relative to the root.
        root: the model that was validated.
    """
    found: dict[str, FieldError] = {}
    for error in errors:
        one = _field_error(error, root)
        if getattr(root, "hides_values", False):
            one.value = None
        known = found.setdefault(one.field, one)
        if known is not one:  # a plain union reports once per member
            known.message = f"{known.message}, or {one.message}"
            known.allowed = [*(known.allowed or []), *(one.allowed or [])] or None
    return list(found.values())


def parameter_error(error: Mapping[str, Any]) -> FieldError:
    """Translate an error about a query parameter, a path segment or a header."""
    names = [str(part) for part in error["loc"][1:2]]
    return FieldError(
        field=".".join(names) or "query",
        message=_message(error),
        value=shown(error.get("input")),
        allowed=_choices(error.get("ctx", {})),
    )


def shown(value: Any) -> JsonValue:
    """Return a value fit for an answer: short scalars as they are, long texts cut, structures left out."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) <= _LARGEST_SAFE_INT else f"{str(value)[:40]}..."
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return value if len(value) <= _LONGEST_VALUE_CHARS else value[:_LONGEST_VALUE_CHARS] + "..."
    return None


def _field_error(error: Mapping[str, Any], root: type[BaseModel]) -> FieldError:
    context = error.get("ctx", {})
    if error["type"] == "inconsistent":  # xsam.services.specs.base.field_error names the field itself
        return FieldError(field=context["field"], message=context["message"])
    path, owner = _resolve(root, error["loc"])
    value = error.get("input")
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        path.append(context["discriminator"].strip("'"))
        value = context.get("tag")
    elif error["type"] == "boolean_given":
        path.append(context["name"])
        value = value.get(context["name"]) if isinstance(value, dict) else None
    allowed = sorted(owner.model_fields) if error["type"] == "extra_forbidden" and owner else _choices(context)
    return FieldError(field=".".join(path) or "body", message=_message(error), value=shown(value), allowed=allowed)


def _resolve(root: type[BaseModel], location: Iterable[str | int]) -> tuple[list[str], type[BaseModel] | None]:
    """Return the path as the caller wrote it and the model that holds its last name.

    Pydantic puts the tag of a discriminated union (and marks of other unions and keys) into the location; the caller
    never wrote those.
    """
    path: list[str] = []
    parts = iter(location)
    current: type[BaseModel] | None = root
    for part in parts:
        path.append(_printable(part))
        field = current.model_fields.get(str(part)) if current else None
        if field is None or current is None:
            return path, current
        following = _model_of(field, parts)
        if following is None:
            if _is_indexed(field):
                path.extend(_printable(index) for index in list(parts)[:1])
            return path, None
        current = following
    return path, current


def _printable(part: str | int) -> str:
    text = str(part)
    return text if text.isprintable() else repr(text)


def _model_of(field: FieldInfo, parts: Any) -> type[BaseModel] | None:
    annotation = field.annotation
    if isinstance(field.discriminator, str):
        tag = next(parts, None)
        members = getattr(annotation, "__args__", ())
        return next((m for m in members if m.model_fields[field.discriminator].default == tag), None)
    if get_origin(annotation) in (Union, UnionType):  # a model or null
        members = [one for one in get_args(annotation) if one is not type(None)]
        annotation = members[0] if len(members) == 1 else None
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return None


def _is_indexed(field: FieldInfo) -> bool:
    return (get_origin(field.annotation) or field.annotation) in _INDEXED


def _message(error: Mapping[str, Any]) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return "is not a known field"
    if kind == "missing":
        return "is required"
    if kind == "union_tag_not_found":
        return "is required: it says what kind this is"
    if kind == "union_tag_invalid":
        return f"must be one of {context['expected_tags']}"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return "must be an object"
    return re.sub(r"^(Input|Value|String) should", "must", str(error["msg"])).partition(", unable")[0]


def _choices(context: Mapping[str, Any]) -> list[str] | None:
    listed = context.get("expected_tags") or context.get("expected")
    if not isinstance(listed, str):
        return None
    return re.findall(r"'([^']*)'", listed) or None
