"""What the API takes and shows of requirements."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict

from xsam.services.requirements.lines import MAX_CHARS
from xsam.services.schemas import Read


def _short(text: str) -> str:
    if len(text) > MAX_CHARS:
        raise ValueError(f"has {len(text):,} characters; allowed are {MAX_CHARS:,}")
    return text


class RequirementsCreate(BaseModel):
    """Requirements to be locked."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    text: Annotated[str, AfterValidator(_short)]
    """Lines of a requirements.txt: names with versions, no options, URLs or paths. `-c name==version` asks for
    nothing, but says which version is taken if the package is needed and the service has none."""


class RequirementsRead(Read):
    """Requirements and, once there is one, their lock."""

    id: str
    state: Literal["queued", "running", "done"]
    lock_id: str | None
    """What a job names in `requirements.lock`; null until done, and where there is an error."""
    lock: str | None
    """A line for each package beyond the service's environment: name, version, hashes."""
    error: str | None
    """Why there is no lock."""
    made_by: str
    created_at: datetime
