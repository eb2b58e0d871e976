"""Teams: their weight, quota and members."""

from typing import Annotated

from fastapi import Query, Response, status

from xsam.api.http.dependencies import PrincipalDep, ReadSession, WriteSession
from xsam.api.http.queries import TeamPath, TeamsQuery, UserPath, UsersQuery
from xsam.api.http.router import Router
from xsam.services.teams import service as teams
from xsam.services.teams.schemas import MemberPage, MemberRead, MemberWrite, TeamPage, TeamPatch, TeamRead, TeamWrite

router = Router("/v1/teams", "teams")


@router.route("GET", "", "List teams")
def list_teams(session: ReadSession, principal: PrincipalDep, query: Annotated[TeamsQuery, Query()]) -> TeamPage:
    """Return one's own team; all teams, for admins of the service."""
    rows = teams.list_teams(session, principal, after=query.after, limit=query.limit)
    return TeamPage(items=[TeamRead.of(row) for row in rows])


@router.route("GET", "/{team}", "Read a team", refuses=("not_found",))
def get_team(team: TeamPath, session: ReadSession, principal: PrincipalDep) -> TeamRead:
    """Return a team's weight and quota."""
    return TeamRead.of(teams.get_team(session, principal, team))


@router.route(
    "PUT",
    "/{team}",
    "Create or replace a team",
    refuses=("conflict",),
    answers={201: {"description": "The team is new.", "model": TeamRead}},
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


@router.route("PATCH", "/{team}", "Change a team", refuses=("not_found",))
def patch_team(team: TeamPath, changes: TeamPatch, session: WriteSession, principal: PrincipalDep) -> TeamRead:
    """Change a team's weight or some of its limits; for admins of the service."""
    return TeamRead.of(teams.patch_team(session, principal, team, changes))


@router.route("GET", "/{team}/members", "List members", refuses=("not_found",))
def list_members(
    team: TeamPath, session: ReadSession, principal: PrincipalDep, query: Annotated[UsersQuery, Query()]
) -> MemberPage:
    """Return a team's members with their roles."""
    rows = teams.list_members(session, principal, team, after=query.after, limit=query.limit)
    return MemberPage(items=[MemberRead.of(row) for row in rows])


@router.route(
    "PUT",
    "/{team}/members/{user}",
    "Add a member or change a role",
    refuses=("not_found", "conflict"),
    answers={201: {"description": "The member is new.", "model": MemberRead}},
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


@router.route(
    "DELETE",
    "/{team}/members/{user}",
    "Remove a member",
    refuses=("not_found",),
    status_code=status.HTTP_204_NO_CONTENT,
)
def remove_member(team: TeamPath, user: UserPath, session: WriteSession, principal: PrincipalDep) -> None:
    """Take a user out of a team and revoke the tokens they have in it; for the team's admins."""
    teams.remove_member(session, principal, team, user)
