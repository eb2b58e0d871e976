"""Signing in through an OpenID provider: to it, and back with whom it vouches for."""

import base64
import hmac
import json
from dataclasses import asdict
from typing import Annotated

from fastapi import Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import ConfigDict, Field

from xsam.api.dashboard.pages import Page, Pages, ViewQuery
from xsam.api.dashboard.security import own_path
from xsam.api.dashboard.templating import render
from xsam.api.dashboard.views.sign_in import ask
from xsam.api.http import browsers
from xsam.api.http.dependencies import Service, ServiceDep
from xsam.api.http.openid import CALLBACK, Journey, OpenIdProvider
from xsam.services.errors import NotFoundError, ServiceError, UnauthenticatedError
from xsam.services.teams import sessions
from xsam.services.teams.sign_on import Person, SeveralTeamsError, sign_in

PATH = "/sign-in/sso"
COOKIE = "xsam-sso"
_TRAVEL_S = 600
"""Time to sign in at the provider."""

pages = Pages()


class Departure(ViewQuery):
    """Where to go after the sign-in, and for which team."""

    next: Annotated[str, Field(max_length=2000)] | None = None
    team: Annotated[str, Field(max_length=63)] | None = None


class Arrival(ViewQuery):
    """What the provider sends the browser back with; providers add fields of their own."""

    model_config = ConfigDict(extra="ignore")

    code: Annotated[str, Field(max_length=4000)] | None = None
    state: Annotated[str, Field(max_length=200)] = ""
    error: Annotated[str, Field(max_length=200)] | None = None
    error_description: Annotated[str, Field(max_length=1000)] | None = None


@pages.get(PATH)
def depart(request: Request, service: ServiceDep, view: Annotated[Departure, Query()]) -> Response:
    """Send the browser to the provider. A link leads here, since a form may not lead to another host."""
    provider = _provider(service)
    journey = Journey.begin()
    try:
        url = provider.authorization_url(journey)
    except UnauthenticatedError as e:
        return ask(request, service, own_path(view.next), refusal=e.message, status=502)
    carried = {**asdict(journey), "next": own_path(view.next), "team": view.team}
    answer = RedirectResponse(url, status_code=303, headers={"Cache-Control": "no-store", "Referrer-Policy": "origin"})
    _keep(service, answer, base64.urlsafe_b64encode(json.dumps(carried).encode()).decode())
    return answer


@pages.get(CALLBACK)
def arrive(request: Request, service: ServiceDep, view: Annotated[Arrival, Query()]) -> Response:
    """Begin a session for whom the provider vouches for."""
    provider = _provider(service)
    try:
        carried = _carried(service, request)
        next_path = own_path(carried.get("next"))
        journey = Journey(carried["state"], carried["nonce"], carried["verifier"])
    except (KeyError, ValueError):
        refusal = "this sign-in was not begun in this browser, or more than ten minutes ago; begin again"
        return ask(request, service, own_path(None), refusal=refusal, status=400)
    try:
        if not hmac.compare_digest(view.state.encode(), journey.state.encode()):
            raise UnauthenticatedError("the answer belongs to another sign-in; begin again")
        if view.code is None:
            said = view.error_description or view.error or "nothing"
            raise UnauthenticatedError(f"{provider.host} did not sign you in: {said}")
        secret = _begin(service, provider.person(journey, view.code), carried.get("team"), request)
    except SeveralTeamsError as e:
        return render(request, "choose_team.html", {"strips": [], "teams": e.teams, "next_path": next_path})
    except ServiceError as e:
        return ask(request, service, next_path, refusal=e.message, status=401)
    answer = Page.go(next_path)
    browsers.keep_session(request, answer, secret)
    _keep(service, answer, "", max_age=0)
    return answer


def _begin(service: Service, person: Person, team: str | None, request: Request) -> str:
    with service.database.unit_of_work() as session:
        principal = sign_in(session, service.settings.sign_on, person, team=team)
        _, secret = sessions.begin(session, principal, user_agent=request.headers.get("user-agent"))
    return secret


def _provider(service: Service) -> OpenIdProvider:
    if service.openid is None:
        raise NotFoundError("this service has no sign-on provider (XSAM_SIGN_ON__ISSUER)")
    return service.openid


def _is_secure(service: Service) -> bool:
    return str(service.settings.sign_on.public_url).startswith("https://")


def _keep(service: Service, answer: Response, value: str, *, max_age: int = _TRAVEL_S) -> None:
    is_secure = _is_secure(service)
    name = f"__Host-{COOKIE}" if is_secure else COOKIE
    # lax: it has to come along when the provider sends the browser back.
    answer.set_cookie(name, value, max_age=max_age, path="/", secure=is_secure, httponly=True, samesite="lax")


def _carried(service: Service, request: Request) -> dict[str, str]:
    name = f"__Host-{COOKIE}" if _is_secure(service) else COOKIE
    carried = json.loads(base64.urlsafe_b64decode(request.cookies.get(name, "")))
    if not isinstance(carried, dict):
        raise ValueError("not what was given")
    return carried
