"""Confirming a program that signs in: the person compares its short code and lets it speak for them, or not."""

from typing import Annotated

from fastapi import Query, Response
from pydantic import Field

from xsam.api.dashboard.pages import Page, PageDep, Pages, ViewQuery
from xsam.api.dashboard.visitors import FormDep
from xsam.api.http.dependencies import ReadSession
from xsam.api.http.rate_limit import RateLimitedError
from xsam.services.errors import ConflictError, ForbiddenError, NotFoundError, ServiceError
from xsam.services.teams import device_login
from xsam.services.teams.models import DeviceCode

PATH = "/device"

pages = Pages()


class DeviceView(ViewQuery):
    """Which program is looked at; a link may bring its code, which a person still has to confirm."""

    code: Annotated[str, Field(max_length=40)] | None = None


@pages.get(PATH)
def show_device(page: PageDep, session: ReadSession, view: Annotated[DeviceView, Query()]) -> Response:
    """Ask for a code, or show which program has it."""
    if view.code is None:
        return _show(page)
    try:
        _check_may_guess(page)
        return _show(page, code=view.code, program=device_login.waiting(session, view.code))
    except NotFoundError as e:
        _count_guess(page)
        return _show(page, code=view.code, refusal=e)


@pages.post(PATH)
def decide(page: PageDep, form: FormDep) -> Response:
    """Let the program have a token of the visitor's, or refuse it."""
    code, approves = form.one("code"), form.one("decision") == "confirm"
    try:
        _check_may_guess(page)
        with page.service.database.unit_of_work() as session:
            device_login.decide(session, page.principal, code, approves=approves)
    except NotFoundError as e:
        _count_guess(page)
        return _show(page, code=code, refusal=e, status=404)
    except ForbiddenError as e:
        return _show(page, code=code, refusal=e, status=403)
    except ConflictError as e:
        return _show(page, code=code, refusal=e, status=409)
    return _show(page, decision="confirmed" if approves else "refused")


def _check_may_guess(page: Page) -> None:
    """Refuse somebody who has tried too many codes.

    Raises:
        RateLimitedError: they have to wait.
    """
    wait_s = page.service.guesses.wait_s(page.principal.user)
    if wait_s > 0:
        raise RateLimitedError(wait_s, "too many codes that no program shows")


def _count_guess(page: Page) -> None:
    page.service.guesses.take(page.principal.user)


def _show(
    page: Page,
    *,
    code: str | None = None,
    program: DeviceCode | None = None,
    refusal: ServiceError | None = None,
    decision: str | None = None,
    status: int = 200,
) -> Response:
    sentence = None if refusal is None else refusal.message
    context = {"code": code, "program": program, "refusal": sentence, "decision": decision}
    return page.render("device.html", status_code=status, **context)
