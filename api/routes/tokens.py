"""Tokens: make, list, revoke."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response, status

from xsam.api.http.dependencies import PrincipalDep, ReadSession, WriteSession, no_query
from xsam.api.http.problems import documented
from xsam.api.http.team_queries import TokenId, TokensQuery
from xsam.api.routes.teams import BODY_CODES
from xsam.services.teams import tokens
from xsam.services.teams.schemas import TokenCreate, TokenCreated, TokenPage, TokenRead

router = APIRouter(
    prefix="/v1/tokens",
    tags=["tokens"],
    responses=documented("validation_failed", "invalid_request", "database_unavailable", "internal_error"),
)


@router.post(
    "",
    operation_id="createToken",
    summary="Make a token",
    status_code=status.HTTP_201_CREATED,
    responses=documented("not_found", *BODY_CODES),
    dependencies=[Depends(no_query)],
)
def create_token(
    wanted: TokenCreate, session: WriteSession, principal: PrincipalDep, response: Response
) -> TokenCreated:
    """Make a token and show it, this once. Admins make tokens for others as well.

    A member's new token ends no later than the one they call with.
    """
    row, text = tokens.create(session, principal, wanted)
    response.headers["Cache-Control"] = "no-store"
    return TokenCreated.with_secret(row, text)


@router.get("", operation_id="listTokens", summary="List tokens")
def list_tokens(session: ReadSession, principal: PrincipalDep, query: Annotated[TokensQuery, Query()]) -> TokenPage:
    """Return one's own tokens, newest first; the team's, for its admins; all, for admins of the service."""
    page, next_cursor = tokens.list_tokens(session, principal, cursor=query.cursor, limit=query.limit)
    return TokenPage(items=[TokenRead.of(row) for row in page], next_cursor=next_cursor)


@router.delete(
    "/{token_id}",
    operation_id="revokeToken",
    summary="Revoke a token",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=documented("not_found"),
    dependencies=[Depends(no_query)],
)
def revoke_token(token_id: TokenId, session: WriteSession, principal: PrincipalDep) -> None:
    """End a token now. Doing it again is no error."""
    tokens.revoke(session, principal, token_id)
