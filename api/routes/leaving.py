"""Teams and users that leave: what they have, disable, enable, delete."""

from fastapi import status

from xsam.api.http.dependencies import PrincipalDep, ReadSession, WriteSession
from xsam.api.http.queries import TeamPath, UserPath
from xsam.api.http.router import Router
from xsam.services import leaving
from xsam.services.reports import leftovers
from xsam.services.reports.leftovers import LeftoversRead
from xsam.services.teams.schemas import DisabledRead, DisableWrite, TeamRead, UserRead

router = Router("/v1", "teams")


@router.route("GET", "/teams/{team}/leftovers", "Read what a team has", refuses=("not_found",))
def team_leftovers(team: TeamPath, session: ReadSession, principal: PrincipalDep) -> LeftoversRead:
    """Say what ends when the team is disabled and what stays; deleted teams too. For admins of the service."""
    return leftovers.of_team(session, principal, team)


@router.route("POST", "/teams/{team}/disable", "Disable a team", refuses=("not_found", "conflict"))
def disable_team(team: TeamPath, wanted: DisableWrite, session: WriteSession, principal: PrincipalDep) -> DisabledRead:
    """End the team's tokens and sessions and refuse it new jobs; for admins of the service.

    The jobs it has go on, or are cancelled. Repeating the call changes nothing, or cancels what is left.
    """
    return leaving.disable_team(session, principal, team, wanted)


@router.route("POST", "/teams/{team}/enable", "Enable a team", refuses=("not_found",))
def enable_team(team: TeamPath, session: WriteSession, principal: PrincipalDep) -> TeamRead:
    """Let a disabled team, or a deleted one, take jobs again; its tokens stay revoked. For admins of the service."""
    return TeamRead.of(leaving.enable_team(session, principal, team))


@router.route(
    "DELETE",
    "/teams/{team}",
    "Delete a team",
    refuses=("not_found", "conflict"),
    status_code=status.HTTP_204_NO_CONTENT,
)
def delete_team(team: TeamPath, session: WriteSession, principal: PrincipalDep) -> None:
    """Disable a team without jobs to come, take its members out, list it no more; for admins of the service.

    Its jobs and files stay, with its name, and admins of the service read them.
    """
    leaving.delete_team(session, principal, team)


@router.route("GET", "/users/{user}/leftovers", "Read what a user has", refuses=("not_found",))
def user_leftovers(user: UserPath, session: ReadSession, principal: PrincipalDep) -> LeftoversRead:
    """Say what ends when the user is disabled and what stays, in all teams. For admins of the service."""
    return leftovers.of_user(session, principal, user)


@router.route("POST", "/users/{user}/disable", "Disable a user", refuses=("not_found", "conflict"))
def disable_user(user: UserPath, wanted: DisableWrite, session: WriteSession, principal: PrincipalDep) -> DisabledRead:
    """End the user's tokens and sessions in all teams; for admins of the service.

    The jobs they have go on, or are cancelled. Repeating the call changes nothing, or cancels what is left.
    """
    return leaving.disable_user(session, principal, user, wanted)


@router.route("POST", "/users/{user}/enable", "Enable a user", refuses=("not_found",))
def enable_user(user: UserPath, session: WriteSession, principal: PrincipalDep) -> UserRead:
    """Let a disabled user, or a deleted one, have tokens again; for admins of the service."""
    return UserRead.of(leaving.enable_user(session, principal, user))


@router.route(
    "DELETE",
    "/users/{user}",
    "Delete a user",
    refuses=("not_found", "conflict"),
    status_code=status.HTTP_204_NO_CONTENT,
)
def delete_user(user: UserPath, session: WriteSession, principal: PrincipalDep) -> None:
    """Disable a user without jobs to come, take them out of their teams, list them no more; for admins of the service.

    What they did stays, with their name.
    """
    leaving.delete_user(session, principal, user)
