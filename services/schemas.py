"""The base of every document that the service answers with."""

from pydantic import BaseModel, ConfigDict


class Read(BaseModel):
    """A document the service answers with."""

    model_config = ConfigDict(from_attributes=True, use_attribute_docstrings=True)
