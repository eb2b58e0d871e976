"""Tokens: make, list, revoke."""

from typing import Annotated

from fastapi import Query, Response, status

from xsam.api.http.dependencies import PrincipalDep, ReadSession, WriteSession
from xsam.api.http.queries import TokenId, TokensQuery
from xsam.api.http.router import Router
from xsam.services.teams import tokens
from xsam.services.teams.schemas import TokenCreate, TokenCreated, TokenPage, TokenRead

router = Router("/v1/tokens", "tokens")


@router.route("POST", "", "Make a token", refuses=("not_found",), status_code=status.HTTP_201_CREATED)
def create_token(
    wanted: TokenCreate, session: WriteSession, principal: PrincipalDep, response: Response
) -> TokenCreated:
    """Make a token and show it, this once. Admins make tokens for others as well.

    A member's new token ends no later than the one they call with.
    """
    row, text = tokens.create(session, principal, wanted)
    response.headers["Cache-Control"] = "no-store"
    return TokenCreated.with_secret(row, text)


@router.route("GET", "", "List tokens")
def list_tokens(session: ReadSession, principal: PrincipalDep, query: Annotated[TokensQuery, Query()]) -> TokenPage:
    """Return one's own tokens, newest first; the team's, for its admins; all, for admins of the service."""
    page, next_cursor = tokens.list_tokens(session, principal, cursor=query.cursor, limit=query.limit)
    return TokenPage(items=[TokenRead.of(row) for row in page], next_cursor=next_cursor)


@router.route("DELETE", "/{token_id}", "Revoke a token", refuses=("not_found",), status_code=status.HTTP_204_NO_CONTENT)
def revoke_token(token_id: TokenId, session: WriteSession, principal: PrincipalDep) -> None:
    """End a token now. Doing it again is no error."""
    tokens.revoke(session, principal, token_id)
