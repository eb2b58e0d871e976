"""Tokens: which there are, making one (shown once), ending one."""

from typing import Annotated, Any

from fastapi import Query, Response
from pydantic import ValidationError
from sqlalchemy.orm import Session

from xsam.api.dashboard.pages import Page, PageDep, Pages, ViewQuery
from xsam.api.dashboard.visitors import FormDep
from xsam.api.http.dependencies import ReadSession, WriteSession
from xsam.api.http.queries import Cursor, TokenId
from xsam.api.http.validation import field_errors
from xsam.services.errors import InvalidRequestError
from xsam.services.teams import tokens
from xsam.services.teams.schemas import TokenCreate, TokenRead

_DAY_S = 86_400.0

pages = Pages()


class TokensView(ViewQuery):
    """Which page of the tokens is looked at."""

    cursor: Cursor = None


@pages.get("/admin/tokens")
def show_tokens(page: PageDep, session: ReadSession, view: Annotated[TokensView, Query()]) -> Response:
    """Show the tokens that the visitor manages."""
    return _list(page, session, cursor=view.cursor)


@pages.post("/admin/tokens")
def make_token(page: PageDep, session: WriteSession, form: FormDep) -> Response:
    """Make a token and show it, this once."""
    given: dict[str, Any] = {name: form.one(name) or None for name in ("user", "team", "label")}
    try:
        given["expires_in_s"] = float(form.one("days", "90") or "90") * _DAY_S
        wanted = TokenCreate.model_validate(given)
    except ValidationError as e:
        first = field_errors(e.errors(), TokenCreate)[0]
        raise InvalidRequestError(f"{first.field} {first.message}", field=first.field) from e
    except ValueError as e:
        raise InvalidRequestError(f"days is {form.one('days')[:40]!r}; allowed are numbers", field="days") from e
    _, text = tokens.create(session, page.principal, wanted)
    return _list(page, session, made=text)


@pages.post("/admin/tokens/{token_id}/revoke")
def revoke_token(token_id: TokenId, page: PageDep, session: WriteSession, form: FormDep) -> Response:
    """End a token now, with those made with it."""
    tokens.revoke(session, page.principal, token_id)
    return page.go("/admin/tokens")


def _list(page: Page, session: Session, *, cursor: str | None = None, made: str | None = None) -> Response:
    rows, later = tokens.list_tokens(session, page.principal, cursor=cursor)
    return page.render(
        "tokens.html", tokens=[TokenRead.of(row) for row in rows], later=later, made=made, url=_url(page)
    )


def _url(page: Page) -> str:
    return str(page.request.base_url).rstrip("/")
