"""Sign-on through a provider: which user somebody is here, and what their groups let them do."""

import re
from dataclasses import dataclass, replace

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from xsam.services.errors import UnauthenticatedError
from xsam.services.settings import SignOnSettings
from xsam.services.teams import audit, service, tokens
from xsam.services.teams.models import Identity, Membership, Team, User
from xsam.services.teams.roles import SYSTEM, Principal, Role
from xsam.services.teams.schemas import TokenCreate, UserName

_SERVICE = Principal(user=SYSTEM, team=service.DEFAULT_TEAM, role=Role.ADMIN, is_admin=True)
_NOT_IN_NAMES = re.compile(r"[^a-z0-9._@-]+")
_NAMES: TypeAdapter[str] = TypeAdapter(UserName)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody whom the provider vouches for.

    Args:
        issuer: the provider.
        subject: its own name for them, which never changes.
        name: what they are called.
        groups: that they are in.
    """

    issuer: str
    subject: str
    name: str
    groups: frozenset[str]


class SeveralTeamsError(UnauthenticatedError):
    """Somebody may speak for several teams and has not said for which.

    Args:
        teams: to choose from.
    """

    def __init__(self, teams: list[str]) -> None:
        super().__init__(f"you are in the teams {', '.join(teams)}; choose one", field="team")
        self.teams = teams


def sign_in(session: Session, rules: SignOnSettings, person: Person, *, team: str | None = None) -> Principal:
    """Return who a person is here, with a token of their own; their memberships follow the provider's groups.

    Args:
        session: open in a unit of work.
        rules: what the operator set.
        person: who signs in.
        team: to speak for; needed by those who have several.

    Raises:
        UnauthenticatedError: none of their groups has a team here, the team is not theirs, or the name belongs to
            somebody else; or they are disabled here.
        SeveralTeamsError: they have several teams, and named none.
        ConflictError: they would be the last admin to leave.
    """
    user = _user(session, rules, person)
    row = session.get_one(User, user)
    if row.disabled_at is not None:
        raise UnauthenticatedError(f"user {user} was disabled here at {row.disabled_at:%Y-%m-%d %H:%M:%S} UTC")
    is_admin = bool(person.groups & set(rules.admin_groups))
    roles = _follow_groups(session, rules, person, user)
    if rules.admin_groups and row.is_admin != is_admin:
        service.put_user(session, _SERVICE, user, is_admin=is_admin)
    own = sorted(roles) or ([service.DEFAULT_TEAM] if is_admin else [])
    if not own:
        raise UnauthenticatedError(
            f"none of your groups has a team here; {user} has {', '.join(sorted(person.groups)) or 'no group'}"
        )
    if team is not None and team not in own:
        raise UnauthenticatedError(f"team is {team!r}; yours are {', '.join(own)}", field="team")
    if team is None and len(own) > 1:
        raise SeveralTeamsError(own)
    chosen = team or own[0]
    wanted = TokenCreate(label="sign-on", user=user, team=chosen, expires_in_s=rules.hours * 3600)
    token, _ = tokens.create(session, _SERVICE, wanted)
    principal = tokens.holder(session, token.id)
    audit.record(session, principal, "signed_on", user, team=chosen, issuer=person.issuer, identity=person.subject)
    return replace(principal, session_id=None)


def _user(session: Session, rules: SignOnSettings, person: Person) -> str:
    """Return the name of the person's user, who is created or taken over at the first sign-in."""
    known = session.get(Identity, (person.issuer, person.subject))
    if known is not None:
        return known.user_name
    name = _name(person.name)
    user = session.get(User, name, with_for_update=True)
    is_taken = session.scalar(select(Identity.user_name).where(Identity.user_name == name)) is not None
    is_kept = user is not None and (user.is_admin or user.is_service or not rules.adopts_users)
    if is_taken or is_kept:
        raise UnauthenticatedError(
            f"there is a user {name} already who does not sign in this way; ask an admin of this service"
        )
    service.ensure_user(session, name)
    session.add(Identity(issuer=person.issuer, subject=person.subject, user_name=name))
    session.flush()
    return name


def _name(claimed: str) -> str:
    name = _NOT_IN_NAMES.sub("-", claimed.lower()).lstrip("._@-")[:63]
    try:
        return _NAMES.validate_python(name)
    except ValidationError as e:
        raise UnauthenticatedError(f"the provider calls you {claimed!r}, which makes no user name here") from e


def _follow_groups(session: Session, rules: SignOnSettings, person: Person, user: str) -> dict[str, Role]:
    """Make the user's memberships in the teams that groups speak of what their groups say; return those they have."""
    granted: dict[str, Role] = {}
    for group, roles in rules.groups.items():
        for one in roles if group in person.groups else ():
            role, had = Role(one.role), granted.get(one.team)
            granted[one.team] = had if had is not None and had.includes(role) else role
    followed = {one.team for roles in rules.groups.values() for one in roles}
    query = select(Membership.team_name, Membership.role).where(Membership.user_name == user)
    present = {team: Role(role) for team, role in session.execute(query)}
    open_teams = set(session.scalars(select(Team.name).where(Team.disabled_at.is_(None), Team.deleted_at.is_(None))))
    wanted = {team: role for team, role in granted.items() if team in open_teams}
    for team, role in wanted.items():
        if present.get(team) is not role:
            service.put_member(session, _SERVICE, team, user, role)
    for team in present.keys() & followed & open_teams - wanted.keys():
        service.remove_member(session, _SERVICE, team, user)
    kept = {team: role for team, role in present.items() if team not in followed and team in open_teams}
    return kept | wanted
