"""Users of the service, and who the caller is."""

from typing import Annotated

from fastapi import Query, Response, status

from xsam.api.http.dependencies import AllowedCodeDep, PrincipalDep, ReadSession, WriteSession
from xsam.api.http.queries import UserPath, UsersQuery
from xsam.api.http.router import Router
from xsam.services.teams import service as teams
from xsam.services.teams.schemas import ServiceAccountWrite, UserPage, UserRead, UserWrite, WhoAmI

router = Router("/v1", "teams")


@router.route("GET", "/whoami", "Who is calling?")
def who_am_i(session: ReadSession, principal: PrincipalDep, allowed: AllowedCodeDep) -> WhoAmI:
    """Return the user, team and role that the token speaks for, when it ends, and what the caller may do."""
    return teams.who_is(session, principal, takes_code=allowed.takes_bundles)


@router.route("GET", "/users", "List users")
def list_users(session: ReadSession, principal: PrincipalDep, query: Annotated[UsersQuery, Query()]) -> UserPage:
    """Return all users; for admins of the service."""
    rows = teams.list_users(session, principal, after=query.after, limit=query.limit)
    return UserPage(items=[UserRead.of(row) for row in rows])


@router.route(
    "PUT",
    "/users/{user}",
    "Create a user or make one an admin",
    refuses=("conflict",),
    answers={201: {"description": "The user is new.", "model": UserRead}},
)
def put_user(
    user: UserPath, wanted: UserWrite, session: WriteSession, principal: PrincipalDep, response: Response
) -> UserRead:
    """Create a user, or make one an admin of the service or no longer one; for admins of the service."""
    row, is_new = teams.put_user(session, principal, user, is_admin=wanted.is_admin)
    if is_new:
        response.status_code = status.HTTP_201_CREATED
    return UserRead.of(row)


@router.route(
    "PUT",
    "/service-accounts/{user}",
    "Create a service account or change its role",
    refuses=("not_found", "conflict"),
    answers={201: {"description": "The account is new.", "model": UserRead}},
)
def put_service_account(
    user: UserPath, wanted: ServiceAccountWrite, session: WriteSession, principal: PrincipalDep, response: Response
) -> UserRead:
    """Create a program's user in a team, or change its role there; for the team's admins and those of the service.

    Its tokens are made as others' are and have to end; nobody signs on as one.
    """
    row, is_new = teams.put_service_account(session, principal, user, wanted)
    if is_new:
        response.status_code = status.HTTP_201_CREATED
    return UserRead.of(row)
