"""The routes that answer with pages: registered like those of REST, outside of its document."""

from collections.abc import Callable
from typing import Annotated, Any, Self, TypeVar, get_type_hints

from fastapi import APIRouter, Depends, Request, params
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import BaseModel, ConfigDict, model_validator

from xsam.api.dashboard import status
from xsam.api.dashboard.templating import render
from xsam.api.dashboard.visitors import Visitor, VisitorDep
from xsam.api.http.dependencies import Service, ServiceDep, no_query
from xsam.services.teams.roles import Principal

_Function = TypeVar("_Function", bound=Callable[..., Any])
_SEE_OTHER = 303


class ViewQuery(BaseModel):
    """The state of a view, all of it in its URL. A form sends empty fields, which say nothing."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _without_empty_fields(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        kept = {name: [one for one in v if one != ""] if isinstance(v, list) else v for name, v in given.items()}
        return {name: value for name, value in kept.items() if value not in ("", [])}

    def changed(self) -> dict[str, Any]:
        """Return what differs from the defaults, for links to the same view in another state."""
        return self.model_dump(mode="json", exclude_defaults=True)


class Page:
    """One request for a page by somebody who may see it.

    Args:
        request: for it.
        service: that answers.
        visitor: who looks.
    """

    def __init__(self, request: Request, service: Service, visitor: Visitor) -> None:
        self.request = request
        self.service = service
        self.visitor = visitor

    @property
    def principal(self) -> Principal:
        """Who looks, as services know them."""
        return self.visitor.principal

    @classmethod
    def of(cls, request: Request, service: ServiceDep, visitor: VisitorDep) -> Self:
        """Return the page that a request asks for."""
        return cls(request, service, visitor)

    def render(self, template: str, *, status_code: int = 200, **context: Any) -> HTMLResponse:
        """Return the answer that shows a template with what it needs beside the frame's own values."""
        with self.service.database.read() as session:
            strips = status.strips(session)
        return render(self.request, template, {"strips": strips, **context}, status=status_code)

    @staticmethod
    def go(path: str) -> RedirectResponse:
        """Return the answer to a form: go and look at this path of ours."""
        return RedirectResponse(path, status_code=_SEE_OTHER)


PageDep = Annotated[Page, Depends(Page.of)]


class Pages:
    """Collects the routes of one view; a view module has one, named `pages`."""

    def __init__(self) -> None:
        self.routes = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)

    def get(self, path: str) -> Callable[[_Function], _Function]:
        """Register what answers at a path; query parameters that it does not take are refused."""
        return self._register("GET", path)

    def post(self, path: str) -> Callable[[_Function], _Function]:
        """Register what a form is sent to."""
        return self._register("POST", path)

    def _register(self, method: str, path: str) -> Callable[[_Function], _Function]:
        def register(function: _Function) -> _Function:
            refused = [] if _takes_query(function) else [Depends(no_query)]
            self.routes.add_api_route(path, function, methods=[method], dependencies=refused, response_model=None)
            return function

        return register


def _takes_query(function: Callable[..., Any]) -> bool:
    hints = get_type_hints(function, include_extras=True)
    marks = [mark for hint in hints.values() for mark in getattr(hint, "__metadata__", ())]
    return any(isinstance(mark, params.Query) for mark in marks)
