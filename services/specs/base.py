"""The pydantic base that every part of a specification shares; no field lives here."""

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError


class Spec(BaseModel):
    """A part of a specification: unknown fields are refused, values never change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


def field_error(field: str, message: str) -> PydanticCustomError:
    """Return an error about `field` (dotted path from the specification's root) found while checking the whole."""
    return PydanticCustomError("inconsistent", "{message}", {"message": message, "field": field})
