"""Who may do what: the roles in a team, and the caller as every rule sees it. No I/O."""

from dataclasses import dataclass
from enum import StrEnum

from xsam.services.errors import ForbiddenError, NotFoundError

SYSTEM = "system"
"""Actor of what the service does by itself."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who calls: a user of a team."""

    user: str
    team: str


class Role(StrEnum):
    """What a member may do in a team; each role includes those before it."""

    VIEWER = "viewer"
    """Read the team's jobs."""
    MEMBER = "member"
    """Submit and change the team's jobs, make tokens for oneself."""
    ADMIN = "admin"
    """Manage the team's members and their tokens, read its audit trail."""

    def includes(self, other: "Role") -> bool:
        """Return whether this role may do what `other` may."""
        order = tuple(Role)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True, slots=True)
class Principal(Actor):
    """An authenticated caller: a user who speaks for one team.

    Args:
        role: what the user may do in the team.
        is_admin: a cluster admin, who sees and changes everything of every team.
        token_id: the token that says so; None on a service without tokens.
        session_id: the browser's session that carries the token; None for those who send the token itself.
    """

    role: Role = Role.VIEWER
    is_admin: bool = False
    token_id: str | None = None
    session_id: str | None = None

    @property
    def visible_team(self) -> str | None:
        """The only team whose jobs this caller sees; None for all."""
        return None if self.is_admin else self.team

    def sees(self, team: str) -> bool:
        """Return whether the caller may know about something of this team."""
        return self.is_admin or team == self.team

    def may(self, role: Role) -> bool:
        """Return whether the caller may do in their own team what `role` may."""
        return self.is_admin or self.role.includes(role)


class Capability(StrEnum):
    """What a caller may do, for pages that show only what would not be refused."""

    CHANGE_JOBS = "change_jobs"
    """Submit and change the team's jobs and studies, make tokens for oneself."""
    BRING_CODE = "bring_code"
    """Upload code for jobs."""
    MANAGE_TEAM = "manage_team"
    """Manage the team's members and their tokens, read its audit trail."""
    MANAGE_SERVICE = "manage_service"
    """See and change everything of every team; teams, users, quotas."""


def capabilities(principal: Principal, *, takes_code: bool) -> list[Capability]:
    """Return what a caller may do beyond reading.

    Args:
        principal: the caller.
        takes_code: whether the service takes uploaded code at all.
    """
    may = {
        Capability.CHANGE_JOBS: principal.may(Role.MEMBER),
        Capability.BRING_CODE: principal.may(Role.MEMBER) and takes_code,
        Capability.MANAGE_TEAM: principal.may(Role.ADMIN),
        Capability.MANAGE_SERVICE: principal.is_admin,
    }
    return [capability for capability, is_held in may.items() if is_held]


def require_role(principal: Principal, role: Role) -> None:
    """Let only callers pass that have at least this role.

    Raises:
        ForbiddenError: the caller's role is lower.
    """
    if not principal.may(role):
        raise ForbiddenError(
            f"{principal.user} is {principal.role} of team {principal.team}; this needs the role {role}"
        )


def require_cluster_admin(principal: Principal) -> None:
    """Let only cluster admins pass.

    Raises:
        ForbiddenError: the caller is none.
    """
    if not principal.is_admin:
        raise ForbiddenError(f"{principal.user} is no admin of this service; only those may do this")


def require_team_admin(principal: Principal, team: str) -> None:
    """Let only those pass that manage this team.

    Raises:
        NotFoundError: it is somebody else's team, about which the caller learns nothing.
        ForbiddenError: the caller belongs to the team but is no admin of it.
    """
    require_visible(principal, team)
    require_role(principal, Role.ADMIN)


def require_visible(principal: Principal, team: str) -> None:
    """Let only those pass that may know about the team.

    Raises:
        NotFoundError: they may not; the sentence is the one for a team that does not exist.
    """
    if not principal.sees(team):
        raise no_such_team(team)


def no_such_team(team: str) -> NotFoundError:
    """Return the error about a team that does not exist or is not the caller's to see."""
    return NotFoundError(f"no team {team}", field="team")
