"""Teams: their weight, quota and members."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response, status

from xsam.api.http.dependencies import PrincipalDep, ReadSession, WriteSession, no_query
from xsam.api.http.problems import documented
from xsam.api.http.team_queries import TeamPath, TeamsQuery, UserPath, UsersQuery
from xsam.services.teams import service as teams
from xsam.services.teams.schemas import MemberPage, MemberRead, MemberWrite, TeamPage, TeamPatch, TeamRead, TeamWrite

BODY_CODES = (
    "malformed_body",
    "body_too_large",
    "unsupported_media_type",
    "validation_failed",
    "invalid_request",
)
"""What a route that takes a body may answer besides."""

router = APIRouter(
    prefix="/v1/teams",
    tags=["teams"],
    responses=documented("validation_failed", "invalid_request", "database_unavailable", "internal_error"),
)


@router.get("", operation_id="listTeams", summary="List teams")
def list_teams(session: ReadSession, principal: PrincipalDep, query: Annotated[TeamsQuery, Query()]) -> TeamPage:
    """Return one's own team; all teams, for admins of the service."""
    rows = teams.list_teams(session, principal, after=query.after, limit=query.limit)
    return TeamPage(items=[TeamRead.of(row) for row in rows])


@router.get(
    "/{team}",
    operation_id="getTeam",
    summary="Read a team",
    responses=documented("not_found"),
    dependencies=[Depends(no_query)],
)
def get_team(team: TeamPath, session: ReadSession, principal: PrincipalDep) -> TeamRead:
    """Return a team's weight and quota."""
    return TeamRead.of(teams.get_team(session, principal, team))


@router.put(
    "/{team}",
    operation_id="putTeam",
    summary="Create or replace a team",
    responses={201: {"description": "The team is new.", "model": TeamRead}, **documented(*BODY_CODES)},
    dependencies=[Depends(no_query)],
)
def put_team(
    team: TeamPath, wanted: TeamWrite, session: WriteSession, principal: PrincipalDep, response: Response
) -> TeamRead:
    """Create a team, or give it this weight and quota; for admins of the service.

    A lower quota stops nothing that runs: the team starts nothing before it is below it again.
    """
    row, is_new = teams.put_team(session, principal, team, wanted)
    if is_new:
        response.status_code = status.HTTP_201_CREATED
    return TeamRead.of(row)


@router.patch(
    "/{team}",
    operation_id="patchTeam",
    summary="Change a team",
    responses=documented("not_found", *BODY_CODES),
    dependencies=[Depends(no_query)],
)
def patch_team(team: TeamPath, changes: TeamPatch, session: WriteSession, principal: PrincipalDep) -> TeamRead:
    """Change a team's weight or some of its limits; for admins of the service."""
    return TeamRead.of(teams.patch_team(session, principal, team, changes))


@router.get("/{team}/members", operation_id="listMembers", summary="List members", responses=documented("not_found"))
def list_members(
    team: TeamPath, session: ReadSession, principal: PrincipalDep, query: Annotated[UsersQuery, Query()]
) -> MemberPage:
    """Return a team's members with their roles."""
    rows = teams.list_members(session, principal, team, after=query.after, limit=query.limit)
    return MemberPage(items=[MemberRead.of(row) for row in rows])


@router.put(
    "/{team}/members/{user}",
    operation_id="putMember",
    summary="Add a member or change a role",
    responses={
        201: {"description": "The member is new.", "model": MemberRead},
        **documented("not_found", *BODY_CODES),
    },
    dependencies=[Depends(no_query)],
)
def put_member(
    team: TeamPath,
    user: UserPath,
    wanted: MemberWrite,
    session: WriteSession,
    principal: PrincipalDep,
    response: Response,
) -> MemberRead:
    """Take a user into a team, or change their role; for the team's admins. Unknown users are created."""
    row, is_new = teams.put_member(session, principal, team, user, wanted.role)
    if is_new:
        response.status_code = status.HTTP_201_CREATED
    return MemberRead.of(row)


@router.delete(
    "/{team}/members/{user}",
    operation_id="removeMember",
    summary="Remove a member",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=documented("not_found"),
    dependencies=[Depends(no_query)],
)
def remove_member(team: TeamPath, user: UserPath, session: WriteSession, principal: PrincipalDep) -> None:
    """Take a user out of a team and revoke the tokens they have in it; for the team's admins."""
    teams.remove_member(session, principal, team, user)
