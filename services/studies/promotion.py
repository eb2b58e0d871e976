"""From a study's winner to a job of its own."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from sqlalchemy.orm import Session

from xsam.services.errors import InvalidRequestError
from xsam.services.specs.job import JobSpec
from xsam.services.studies import reading

STUDY_LABEL = "study"


def promoted_job(session: Session, study_id: str, *, number: int | None, changes: Mapping[str, Any]) -> JobSpec:
    """Return the job of a study's best configuration, or of one trial, with changes merged in.

    Raises:
        NotFoundError: no such study or trial.
        ConflictError: no trial has a value yet.
        InvalidRequestError: the changed job would not be valid; names the field.
    """
    best = reading.winning_job(session, study_id, number=number)
    document = _merged(best.model_dump(mode="json"), changes)
    document["labels"] = {**document["labels"], STUDY_LABEL: study_id}
    try:
        return JobSpec.model_validate(document)
    except ValidationError as e:
        error = e.errors()[0]
        path = error.get("ctx", {}).get("field") or ".".join(map(str, error["loc"]))
        raise InvalidRequestError(f"changes.{path}: {error['msg']}", field=f"changes.{path}") from e


def _merged(document: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(document)
    for name, value in changes.items():
        part = merged.get(name)
        merged[name] = _merged(part, value) if isinstance(part, dict) and isinstance(value, Mapping) else value
    return merged
