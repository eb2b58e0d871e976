"""Problem documents (RFC 9457): their shape, and the one table from error code to HTTP status.

The server answers with them and the client reads them; nothing here knows a route.
"""

from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue

PROBLEM_JSON = "application/problem+json"

STATUSES: dict[str, HTTPStatus] = {
    # Errors of services, by their code.
    "service_error": HTTPStatus.INTERNAL_SERVER_ERROR,
    "unauthenticated": HTTPStatus.UNAUTHORIZED,
    "forbidden": HTTPStatus.FORBIDDEN,
    "not_found": HTTPStatus.NOT_FOUND,
    "invalid_request": HTTPStatus.UNPROCESSABLE_ENTITY,
    "infeasible": HTTPStatus.UNPROCESSABLE_ENTITY,
    "conflict": HTTPStatus.CONFLICT,
    "invalid_transition": HTTPStatus.CONFLICT,
    "lease_lost": HTTPStatus.CONFLICT,
    "storage_error": HTTPStatus.SERVICE_UNAVAILABLE,
    # Of the device flow, as RFC 8628 calls them.
    "invalid_grant": HTTPStatus.BAD_REQUEST,
    "authorization_pending": HTTPStatus.BAD_REQUEST,
    "slow_down": HTTPStatus.BAD_REQUEST,
    "access_denied": HTTPStatus.BAD_REQUEST,
    "expired_token": HTTPStatus.BAD_REQUEST,
    # Errors of the API itself.
    "malformed_body": HTTPStatus.BAD_REQUEST,
    "request_timeout": HTTPStatus.REQUEST_TIMEOUT,
    "rate_limited": HTTPStatus.TOO_MANY_REQUESTS,
    "method_not_allowed": HTTPStatus.METHOD_NOT_ALLOWED,
    "body_too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "unsupported_media_type": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "validation_failed": HTTPStatus.UNPROCESSABLE_ENTITY,
    "internal_error": HTTPStatus.INTERNAL_SERVER_ERROR,
    "database_unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
    "not_ready": HTTPStatus.SERVICE_UNAVAILABLE,
}


class FieldError(BaseModel):
    """What is wrong with one field of a request."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    field: str
    """Dotted path from the root of the body, or the name of the parameter or header."""
    message: str
    """What the value must be."""
    value: JsonValue = None
    """The value as given, where it is short; long texts are cut."""
    allowed: list[str] | None = None
    """All values (or names) that would be accepted, where they can be listed."""


class Problem(BaseModel):
    """A refused or failed request (RFC 9457)."""

    model_config = ConfigDict(
        use_attribute_docstrings=True,
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:xsam:problem:validation_failed",
                    "title": "Unprocessable Entity",
                    "status": 422,
                    "detail": "optimizer.rho must be greater than 0",
                    "code": "validation_failed",
                    "errors": [{"field": "optimizer.rho", "message": "must be greater than 0", "value": -1}],
                    "request_id": "4f1d2c3b5a697887",
                }
            ]
        },
    )

    type: str
    """A URI for the kind of problem: `urn:xsam:problem:` and the code."""
    title: str
    """The status in words."""
    status: int
    detail: str
    """One sentence for people."""
    code: str
    """Stable name of the kind of problem, for programs."""
    errors: list[FieldError] = []
    """One entry per wrong field; empty where no field is to blame."""
    request_id: str | None = None
    """Find the request in the server's log by this."""


def make_problem(code: str, detail: str, *, errors: list[FieldError] | None = None) -> Problem:
    """Return the document for a code of the table."""
    status = STATUSES[code]
    return Problem(
        type=f"urn:xsam:problem:{code}",
        title=status.phrase,
        status=status,
        detail=detail,
        code=code,
        errors=errors or [],
    )


def documented(*codes: str) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI `responses` of a route that may answer with these codes."""
    by_status: dict[int | str, list[str]] = {}
    for code in codes:
        by_status.setdefault(int(STATUSES[code]), []).append(code)
    return {
        status: {
            "description": f"{HTTPStatus(int(status)).phrase}: {', '.join(f'`{name}`' for name in names)}",
            "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status, names in by_status.items()
    }
