"""From exceptions to problem documents; the only place of this room that answers for unexpected errors."""

import json
import logging
import math
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from xsam.api.http.problems import PROBLEM_JSON, FieldError, Problem, make_problem
from xsam.api.http.rate_limit import RateLimitedError
from xsam.api.http.validation import field_errors, parameter_error
from xsam.services.errors import ServiceError, UnauthenticatedError
from xsam.services.teams import token_text

logger = logging.getLogger(__name__)

MAX_ERRORS = 20
"""Listed in one answer; its sentence counts them all. A body of 100 kB can have 10,000 wrong fields."""
_HTTP_CODES = {404: "not_found", 405: "method_not_allowed"}


def install(app: FastAPI) -> None:
    """Register a handler for every error that a route or the framework may raise."""
    app.add_exception_handler(ServiceError, on_service_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(OperationalError, on_database_error)
    app.add_exception_handler(PoolTimeoutError, on_database_error)


def problem_response(problem: Problem, request_id: str | None, headers: dict[str, str] | None = None) -> Response:
    """Return the answer that carries a problem document."""
    document = problem.model_copy(update={"request_id": request_id}).model_dump(mode="json", exclude_none=True)
    # Quoted input may hold a token that was sent in the wrong place, and a lone surrogate, which UTF-8 cannot carry.
    body = token_text.redact(json.dumps(document, ensure_ascii=False)).encode("utf-8", "replace")
    return Response(body, status_code=problem.status, media_type=PROBLEM_JSON, headers=headers)


def unexpected_problem() -> Problem:
    """Return the document for an error nobody foresaw; it says nothing about the inside."""
    return make_problem("internal_error", "The server failed; its log has the details under the request id.")


def on_service_error(request: Request, error: Any) -> Response:
    """Return the answer to what a service refuses."""
    fields = [FieldError(field=error.field, message=error.message)] if error.field else []
    return _answer(request, make_problem(error.code, error.message, errors=fields), headers=_headers(request, error))


def _on_invalid_request(request: Request, error: Any) -> Response:
    found = error.errors()
    in_body = [one for one in found if one["loc"][0] == "body"]
    if any(one["type"] == "json_invalid" for one in in_body):
        position = in_body[0]["loc"][1]
        reason = f"The body is not JSON: {in_body[0]['ctx']['error']} at character {position}."
        return _answer(request, make_problem("malformed_body", reason))
    if in_body and isinstance(error.body, bytes):
        detail = "The body must be JSON with Content-Type: application/json."
        return _answer(request, make_problem("unsupported_media_type", detail))
    relative = [{**one, "loc": one["loc"][1:]} for one in in_body]
    fields = [parameter_error(one) for one in found if _is_about_parameter(one)] + field_errors(
        relative, _body_model(request)
    )
    return _answer(request, make_problem("validation_failed", _summary(fields), errors=fields[:MAX_ERRORS]))


def _is_about_parameter(error: dict[str, Any]) -> bool:
    # An optional parameter can't be sent as null, so "or must be None" would be no advice.
    return bool(error["loc"][0] != "body" and error["type"] != "none_required")


def _on_http_error(request: Request, error: Any) -> Response:
    code = _HTTP_CODES.get(error.status_code)
    headers = dict(error.headers or {})
    if code == "not_found":
        problem = make_problem(code, f"Nothing is served at {request.url.path[:200]}.")
    elif code is not None:
        headers["Allow"] = ", ".join(_allowed_methods(request))
        problem = make_problem(code, f"{request.method} is not allowed here; allowed are {headers['Allow']}.")
    else:  # all that is left is FastAPI's answer to a body it could not read
        problem = make_problem("malformed_body", "The body is not JSON in UTF-8 that can be read.")
    return _answer(request, problem, headers=headers)


def on_database_error(request: Request, error: Any) -> Response:
    """Return the answer while the database is away."""
    logger.error("database unavailable: %s", str(error).partition("\n")[0])  # for each request: no place for more
    return _answer(request, make_problem("database_unavailable", "The database can't be reached; try again shortly."))


def _headers(request: Request, error: ServiceError) -> dict[str, str]:
    if isinstance(error, RateLimitedError):
        return {"Retry-After": str(math.ceil(error.retry_after_s))}
    if isinstance(error, UnauthenticatedError):  # RFC 6750: no error code where no token was sent
        reason = ', error="invalid_token"' if "authorization" in request.headers else ""
        return {"WWW-Authenticate": f'Bearer realm="xsam"{reason}'}
    return {}


def _body_model(request: Request) -> type[BaseModel]:
    field = getattr(request.scope.get("route"), "body_field", None)
    annotation = None if field is None else field.field_info.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else BaseModel


def _allowed_methods(request: Request) -> list[str]:
    # Starlette names only those of the first route on the path; each method here is a route of its own.
    found: set[str] = set()
    for route in request.app.state.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            found |= getattr(route, "methods", None) or set()
    return sorted(found)


def _answer(request: Request, problem: Problem, headers: dict[str, str] | None = None) -> Response:
    return problem_response(problem, getattr(request.state, "request_id", None), headers)


def _summary(fields: list[FieldError]) -> str:
    first = fields[0]
    # A check across fields words its sentence itself; the others say what the field must be.
    sentence = f"{first.field} {first.message}" if first.message.startswith(("must ", "is ")) else first.message
    return sentence if len(fields) == 1 else f"{sentence} (and {len(fields) - 1} more)"
