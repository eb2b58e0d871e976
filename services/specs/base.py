"""The pydantic base that every part of a specification shares; no field lives here."""

import unicodedata
from typing import Annotated, Any, ClassVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator
from pydantic_core import PydanticCustomError

MAX_OPTION_DEPTH = 16
_OBEYED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_NO_TEXT = frozenset({"Cc", "Cs"})
_LAID_OUT = "\t\n\r"
_MAX_OPTION_INT = 2**63


class Spec(BaseModel):
    """A part of a specification: unknown fields are refused, values never change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)
    hides_values: ClassVar[bool] = False
    """Whether an answer that refuses it must not quote it."""

    @model_validator(mode="before")
    @classmethod
    def _booleans_are_no_numbers(cls, given: Any) -> Any:
        # pydantic would read true as 1, and `epochs: yes` in YAML as one epoch. (A validator of fields can't be set on
        # those that discriminate unions.)
        for name, value in given.items() if isinstance(given, dict) else ():
            field = cls.model_fields.get(name)
            if isinstance(value, bool) and field is not None and not _takes_booleans(field.annotation):
                raise PydanticCustomError("boolean_given", "Input should not be a boolean", {"name": name})
        return given


def _takes_booleans(annotation: Any) -> bool:
    """Return whether a type, or a part of it, is meant for true or false: `bool`, `bool | None`, `Literal[True]`."""
    is_meant = annotation is bool or isinstance(annotation, bool)
    return is_meant or any(_takes_booleans(one) for one in get_args(annotation))


def field_error(field: str, message: str) -> PydanticCustomError:
    """Return an error about `field` (dotted path from the specification's root) found while checking the whole."""
    return PydanticCustomError("inconsistent", "{message}", {"message": message, "field": field})


def _storable(options: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Refuse what JSON allows (or Python's reader lets through) but not every database stores."""
    _check_storable(options, 0)
    return options


def _check_storable(value: JsonValue, depth: int) -> None:
    if depth > MAX_OPTION_DEPTH:
        raise PydanticCustomError("too_deep", f"Input should be nested at most {MAX_OPTION_DEPTH} deep")
    if isinstance(value, str) and any(unicodedata.category(one) in _NO_TEXT for one in value if one not in _LAID_OUT):
        raise PydanticCustomError("not_text", "Input should hold text without control characters and lone surrogates")
    if isinstance(value, int) and abs(value) >= _MAX_OPTION_INT:
        raise PydanticCustomError("too_large", "Input should hold integers of at most 64 bits")
    if isinstance(value, dict):
        for key, item in value.items():
            _check_storable(key, depth)
            _check_storable(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check_storable(item, depth + 1)


def one_line(text: str) -> str:
    """Refuse characters that a terminal or a page would obey instead of showing: escapes, line breaks, turned text."""
    for one in text:
        if unicodedata.category(one) in _OBEYED:
            raise PydanticCustomError(
                "not_plain", f"Input should be one line of plain text, without U+{ord(one):04X} (control or format)"
            )
    return text


PLAIN = AfterValidator(one_line)
"""Marks text of one line that is safe to show anywhere."""


Options = Annotated[dict[str, JsonValue], Field(max_length=100), AfterValidator(_storable)]
"""Keyword arguments for a team's own code: JSON that every database can store."""
