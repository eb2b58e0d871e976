"""What the forms for jobs and studies share: from inputs or YAML to a specification, and errors at their field."""

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from xsam.api.dashboard import documents
from xsam.api.dashboard.pages import Page
from xsam.api.dashboard.visitors import Form
from xsam.api.http.validation import field_errors
from xsam.services.errors import InvalidRequestError, ServiceError
from xsam.services.settings import AllowedCode

_Spec = TypeVar("_Spec", bound=BaseModel)
_Preview = TypeVar("_Preview")


@dataclass(slots=True)
class Draft(Generic[_Spec]):
    """A specification that is being written.

    Args:
        document: what was said so far.
        spec: the same, checked; None where it is refused.
        errors: by field, why.
        text: as YAML, where that is the view.
        key: makes one job of a form that is sent twice.
    """

    document: dict[str, Any]
    spec: _Spec | None = None
    errors: dict[str, str] = field(default_factory=dict)
    text: str | None = None
    key: str = ""

    def refuse(self, error: ServiceError) -> None:
        """Put a refusal at its field."""
        self.errors[error.field or ""] = error.message


def new_draft(document: Mapping[str, Any], model: type[_Spec], *, is_yaml: bool) -> Draft[_Spec]:
    """Return what a form begins with."""
    draft = checked(dict(document), model)
    draft.key = uuid.uuid4().hex
    draft.text = documents.as_yaml(document) if is_yaml and document else ("" if is_yaml else None)
    return draft


def read_draft(form: Form, model: type[_Spec], fields: Mapping[str, Any]) -> Draft[_Spec]:
    """Return what a form holds: the document of its inputs, or its YAML, shown in the view that was asked for."""
    text = form.fields.get("yaml", [None])[-1]
    wants_yaml = {"as-yaml": True, "as-form": False}.get(form.one("action"), text is not None)
    try:
        document = dict(fields) if text is None else documents.of_yaml(text, "yaml")
    except InvalidRequestError as e:
        return Draft({}, None, {"yaml": e.message}, text, form.one("key"))
    draft = checked(document, model)
    draft.key = form.one("key")
    if wants_yaml:
        draft.text = text if text is not None else (documents.as_yaml(document) if document else "")
    return draft


def checked(document: dict[str, Any], model: type[_Spec]) -> Draft[_Spec]:
    """Return a document with its specification, or with why it is none."""
    try:
        return Draft(document, model.model_validate(document))
    except ValidationError as e:
        return Draft(document, None, {one.field: one.message for one in field_errors(e.errors(), model)})


def submitted(
    page: Page, draft: Draft[_Spec], submit: Callable[..., tuple[Any, bool]], allowed: AllowedCode
) -> str | None:
    """Queue what a draft says, once for its key, and return the new row's id; None, with why, where it is refused."""
    if draft.spec is None:
        return None
    try:
        with page.service.database.unit_of_work() as session:
            key = draft.key or None
            row, _ = submit(session, draft.spec, actor=page.principal, allowed=allowed, idempotency_key=key)
            return str(row.id)
    except ServiceError as e:
        draft.refuse(e)
        return None


def previewed(
    page: Page, draft: Draft[_Spec], preview: Callable[..., _Preview], allowed: AllowedCode
) -> _Preview | None:
    """Return what a draft would take; None, with why, where it is refused."""
    if draft.spec is None:
        return None
    try:
        with page.service.database.read() as session:
            return preview(session, draft.spec, team=page.principal.team, allowed=allowed)
    except ServiceError as e:
        draft.refuse(e)
        return None


def given_document(text: str | None) -> dict[str, Any]:
    """Return the document in an address.

    Raises:
        InvalidRequestError: it is none.
    """
    if not text:
        return {}
    try:
        document = json.loads(text)
    except ValueError as e:
        raise InvalidRequestError("spec is not JSON", field="spec") from e
    if not isinstance(document, dict):
        raise InvalidRequestError(f"spec holds {type(document).__name__}; allowed are objects", field="spec")
    return document


def unplaced(errors: Mapping[str, str], paths: set[str]) -> list[str]:
    """Return the refusals that no input shows."""
    return [f"{name}: {message}" if name else message for name, message in errors.items() if name not in paths]
