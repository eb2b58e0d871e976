"""What every route has in common: who may call it, unknown query parameters refused, the usual refusals documented.

A new route is its path, its summary and the refusals that are its own.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, get_type_hints

from fastapi import APIRouter, Depends, params
from pydantic import BaseModel

from xsam.api.http.access import OWNERS
from xsam.api.http.dependencies import admit, committing, no_query
from xsam.api.http.problems import documented

_Function = TypeVar("_Function", bound=Callable[..., Any])
_Answers = dict[int | str, dict[str, Any]]

_OF_ALL = ("invalid_request", "internal_error")
_OF_ADMITTED = ("unauthenticated", "forbidden", "rate_limited", "database_unavailable")
_OF_INPUT = ("validation_failed",)
_OF_BODIES = ("malformed_body", "request_timeout", "body_too_large", "unsupported_media_type")


class Router:
    """Collects the routes of one noun.

    Args:
        prefix: of their paths.
        tag: where the OpenAPI document lists them.
        is_open: whether they answer to everybody; others admit their caller first.
    """

    def __init__(self, prefix: str, tag: str, *, is_open: bool = False) -> None:
        self._is_open = is_open
        self._prefix = prefix
        self.routes = APIRouter(prefix=prefix, tags=[tag], dependencies=[] if is_open else [Depends(admit)])

    def route(
        self,
        method: str,
        path: str,
        summary: str,
        *,
        refuses: Sequence[str] = (),
        answers: _Answers | None = None,
        **options: Any,
    ) -> Callable[[_Function], _Function]:
        """Register a function as a route; its name in camel case is the operation's id.

        Args:
            method: in capitals.
            path: below the prefix.
            summary: a few words for the OpenAPI document.
            refuses: codes that this route answers with beside those that follow from its path and parameters.
            answers: documented answers beside the usual one, by status.
            options: as FastAPI's routers take them.
        """

        def register(function: _Function) -> _Function:
            hints = get_type_hints(function, include_extras=True)
            takes_query, takes_body = _inputs(hints)
            codes = self._codes(path, takes_input=takes_query or takes_body, takes_body=takes_body)
            self.routes.add_api_route(
                path,
                committing(function, hints),
                methods=[method],
                operation_id=_camel_case(function.__name__),
                summary=summary,
                responses={**(answers or {}), **documented(*codes, *refuses)},
                dependencies=[] if takes_query else [Depends(no_query)],
                **options,
            )
            return function

        return register

    def _codes(self, path: str, *, takes_input: bool, takes_body: bool) -> list[str]:
        names = set(re.findall(r"{(\w+)", self._prefix + path))
        codes = [] if self._is_open else list(_OF_ADMITTED)
        codes += _OF_INPUT if takes_input or names else ()
        codes += _OF_BODIES if takes_body else ()
        codes += ("not_found",) if names & OWNERS.keys() else ()
        return [*codes, *_OF_ALL]


def _inputs(hints: Mapping[str, Any]) -> tuple[bool, bool]:
    """Return whether a route's function with these annotations takes query parameters, and whether it takes a body."""
    takes_query = takes_body = False
    for name, hint in hints.items():
        if name == "return":
            continue
        marks = getattr(hint, "__metadata__", ())
        plain = getattr(hint, "__origin__", hint) if marks else hint
        if any(isinstance(mark, params.Query) for mark in marks):
            takes_query = True
        elif isinstance(plain, type) and issubclass(plain, BaseModel):
            takes_body = True
    return takes_query, takes_body


def _camel_case(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(other.capitalize() for other in others)
