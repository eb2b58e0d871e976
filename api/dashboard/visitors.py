"""Who looks at a page, and the token that ties a form to them."""

import hashlib
import hmac
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import Depends, Request

from xsam.api.http.browsers import check_same_origin
from xsam.api.http.dependencies import PrincipalDep
from xsam.services.errors import ForbiddenError, InvalidRequestError
from xsam.services.teams.roles import Principal, Role

_MINUTE_S = 60
FORM_TOKEN = "form_token"  # noqa: S105 - a field's name
_FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Visitor:
    """A person at a browser.

    Args:
        principal: who they are.
        form_token: has to come back with every form; empty where there is no session to steal.
        has_session: whether they can sign out.
    """

    principal: Principal
    form_token: str
    has_session: bool

    @property
    def may_write(self) -> bool:
        """Whether forms are shown."""
        return self.principal.may(Role.MEMBER)


async def visitor(request: Request, principal: PrincipalDep) -> Visitor:
    """Return who looks at a page that admits its callers."""
    secret = getattr(request.state, "session_secret", None)
    visiting = Visitor(principal, "" if secret is None else form_token(secret), has_session=secret is not None)
    request.state.visitor = visiting
    return visiting


VisitorDep = Annotated[Visitor, Depends(visitor)]


def form_token(secret: str) -> str:
    """Return what a page's forms carry: bound to the session, and no way back to its secret."""
    return hashlib.sha256(f"form {secret}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Form:
    """What a form sent: every field with all of its values."""

    fields: dict[str, list[str]]

    def one(self, name: str, default: str = "") -> str:
        """Return a field's last value."""
        return (self.fields.get(name) or [default])[-1].strip()

    def many(self, name: str) -> list[str]:
        """Return all values of a field that are not empty."""
        return [value for value in self.fields.get(name, []) if value]

    def seconds(self, name: str) -> float | None:
        """Return a field of minutes in seconds; None where it is empty.

        Raises:
            InvalidRequestError: it is no number.
        """
        minutes = self.one(name)
        try:
            return float(minutes) * _MINUTE_S if minutes else None
        except ValueError as e:
            raise InvalidRequestError(f"{name} is {minutes[:40]!r}; allowed are numbers", field=name) from e


async def read_form(request: Request) -> Form:
    """Return the fields of a posted form.

    Raises:
        ForbiddenError: another site sent it, or something else than a form.
    """
    check_same_origin(request.headers.get("host", ""), request.headers)
    if not request.headers.get("content-type", "").startswith(_FORM):
        raise ForbiddenError(f"a form is sent as {_FORM}")
    fields: dict[str, list[str]] = {}
    for name, value in parse_qsl((await request.body()).decode("utf-8", "replace"), keep_blank_values=True):
        fields.setdefault(name, []).append(value)
    return Form(fields)


async def _form_of(request: Request, visiting: VisitorDep) -> Form:
    form = await read_form(request)
    if not hmac.compare_digest(form.one(FORM_TOKEN), visiting.form_token):
        raise ForbiddenError("this form is of another session; reload the page and send it again")
    return form


FormDep = Annotated[Form, Depends(_form_of)]
"""The fields of a form that belongs to the caller's own session. Unlike JSON, it works without JavaScript."""
