"""Signing in with a token, which the browser does not keep, and signing out."""

from typing import Annotated

from fastapi import Depends, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import Field

from xsam.api.dashboard.pages import Page, PageDep, Pages, ViewQuery
from xsam.api.dashboard.security import own_path
from xsam.api.dashboard.templating import render
from xsam.api.dashboard.visitors import Form, FormDep, read_form
from xsam.api.http import browsers
from xsam.api.http.dependencies import Service, ServiceDep, WriteSession, identify
from xsam.api.http.rate_limit import RateLimitedError
from xsam.services.errors import UnauthenticatedError
from xsam.services.teams import sessions

PATH = "/sign-in"

pages = Pages()


class SignInView(ViewQuery):
    """Where to go after the sign-in."""

    next: Annotated[str, Field(max_length=2000)] | None = None


@pages.get(PATH)
async def show_sign_in(request: Request, service: ServiceDep, view: Annotated[SignInView, Query()]) -> Response:
    """Ask for a token; where none is needed there is nothing to ask."""
    if not service.settings.api.needs_token:
        return Page.go(own_path(view.next))
    return ask(request, service, own_path(view.next))


@pages.post(PATH)
async def sign_in(request: Request, service: ServiceDep, form: Annotated[Form, Depends(read_form)]) -> Response:
    """Begin a session with a token."""
    next_path = own_path(form.one("next"))
    if not service.settings.api.needs_token:
        return Page.go(next_path)
    try:
        secret = await run_in_threadpool(_begin, request, service, form.one("token"))
    except (UnauthenticatedError, RateLimitedError) as e:
        status = 429 if isinstance(e, RateLimitedError) else 401
        return ask(request, service, next_path, refusal=e.message, status=status)
    answer = Page.go(next_path)
    browsers.keep_session(request, answer, secret)
    return answer


@pages.post("/sign-out")
def sign_out(page: PageDep, session: WriteSession, form: FormDep) -> Response:
    """End this session, or all of the visitor's."""
    if form.one("everywhere"):
        sessions.end_all(session, page.principal)
    elif page.principal.session_id is not None:
        sessions.end(session, page.principal, page.principal.session_id)
    answer = Page.go(PATH)
    browsers.forget_session(answer)
    return answer


def _begin(request: Request, service: Service, token: str) -> str:
    with service.database.unit_of_work() as session:
        caller = identify(service, session, token, request)
        _, secret = sessions.begin(session, caller.principal, user_agent=request.headers.get("user-agent"))
    return secret


def ask(
    request: Request, service: Service, next_path: str, *, refusal: str | None = None, status: int = 200
) -> Response:
    """Return the page that asks who is there."""
    provider = None if service.openid is None else service.openid.host
    context: dict[str, object] = {"strips": [], "next_path": next_path, "refusal": refusal, "provider": provider}
    return render(request, "sign_in.html", context, status=status)
