"""Users of the service, and who the caller is."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response, status

from xsam.api.http.dependencies import PrincipalDep, ReadSession, WriteSession, no_query
from xsam.api.http.problems import documented
from xsam.api.http.team_queries import UserPath, UsersQuery
from xsam.api.routes.teams import BODY_CODES
from xsam.services.teams import service as teams
from xsam.services.teams.schemas import UserPage, UserRead, UserWrite, WhoAmI

router = APIRouter(
    prefix="/v1",
    tags=["teams"],
    responses=documented("validation_failed", "invalid_request", "database_unavailable", "internal_error"),
)


@router.get("/whoami", operation_id="whoAmI", summary="Who is calling?", dependencies=[Depends(no_query)])
def who_am_i(principal: PrincipalDep) -> WhoAmI:
    """Return the user, team and role that the token speaks for."""
    return WhoAmI.model_validate(principal)


@router.get("/users", operation_id="listUsers", summary="List users")
def list_users(session: ReadSession, principal: PrincipalDep, query: Annotated[UsersQuery, Query()]) -> UserPage:
    """Return all users; for admins of the service."""
    rows = teams.list_users(session, principal, after=query.after, limit=query.limit)
    return UserPage(items=[UserRead.of(row) for row in rows])


@router.put(
    "/users/{user}",
    operation_id="putUser",
    summary="Create a user or make one an admin",
    responses={201: {"description": "The user is new.", "model": UserRead}, **documented("conflict", *BODY_CODES)},
    dependencies=[Depends(no_query)],
)
def put_user(
    user: UserPath, wanted: UserWrite, session: WriteSession, principal: PrincipalDep, response: Response
) -> UserRead:
    """Create a user, or make one an admin of the service or no longer one; for admins of the service."""
    row, is_new = teams.put_user(session, principal, user, is_admin=wanted.is_admin)
    if is_new:
        response.status_code = status.HTTP_201_CREATED
    return UserRead.of(row)
