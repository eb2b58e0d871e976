"""What the API calls for teams, their members, and users. Tokens are in `tokens`."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from xsam.services.db.upsert import insert_missing, upsert
from xsam.services.errors import ConflictError, NotFoundError
from xsam.services.specs.base import Spec
from xsam.services.teams import audit, tokens
from xsam.services.teams.models import Membership, Team, Token, User
from xsam.services.teams.roles import (
    SYSTEM,
    Principal,
    Role,
    capabilities,
    no_such_team,
    require_cluster_admin,
    require_team_admin,
    require_visible,
)
from xsam.services.teams.schemas import Quota, ServiceAccountWrite, TeamPatch, TeamWrite, WhoAmI

DEFAULT_TEAM = "default"
"""The team of whoever calls a service without tokens, and of the first admin."""


def list_teams(session: Session, principal: Principal, *, after: str | None = None, limit: int = 200) -> Sequence[Team]:
    """Return the teams that the caller may know about, by name, from the one that follows `after`."""
    query = select(Team).where(Team.deleted_at.is_(None)).order_by(Team.name).limit(limit)
    if principal.visible_team is not None:
        query = query.where(Team.name == principal.visible_team)
    if after is not None:
        query = query.where(Team.name > after)
    return session.scalars(query).all()


def get_team(session: Session, principal: Principal, name: str) -> Team:
    """Return a team.

    Raises:
        NotFoundError: there is none, or it is not the caller's to see.
    """
    require_visible(principal, name)
    team = session.get(Team, name)
    if team is None or team.deleted_at is not None:
        raise no_such_team(name)
    return team


def put_team(session: Session, principal: Principal, name: str, wanted: TeamWrite) -> tuple[Team, bool]:
    """Create a team or replace its weight and quota; returns it with whether it is new.

    Raises:
        ForbiddenError: the caller is no cluster admin: a team can't raise its own limits.
        ConflictError: a team of this name was deleted.
    """
    require_cluster_admin(principal)
    team = session.get(Team, name, with_for_update=True)
    if team is not None and team.deleted_at is not None:
        # A new team of this name would see the jobs of the old one.
        raise ConflictError(f"team {name} was deleted and its name stays with its jobs; enable it again", field="team")
    is_new = team is None
    values: dict[str, Any] = {"weight": wanted.weight, **_quota_columns(wanted.quota)}
    if wanted.retention is not None:
        values["retention"] = wanted.retention.model_dump(exclude_none=True)
    upsert(session, Team, [{"name": name, **values}], keys=("name",))
    action = "team_created" if is_new else "team_changed"
    audit.record(session, principal, action, name, team=name, **wanted.model_dump(mode="json"))
    return session.get_one(Team, name, populate_existing=True), is_new


def patch_team(session: Session, principal: Principal, name: str, changes: TeamPatch) -> Team:
    """Change a team's weight, some of its limits, for how long its jobs are kept, or what is done about idle GPUs.

    Raises:
        ForbiddenError: the caller is no cluster admin: a team can't raise its own limits.
        NotFoundError: no such team.
    """
    require_cluster_admin(principal)
    values: dict[str, Any] = {}
    if changes.weight is not None:
        values["weight"] = changes.weight
    if changes.quota is not None:
        values |= _quota_columns(changes.quota, only=changes.quota.model_fields_set)
    team = session.get(Team, name, with_for_update=True)
    if team is None or team.deleted_at is not None:
        raise no_such_team(name)
    for column in ("retention", "idle"):
        change: Spec | None = getattr(changes, column)
        if change is not None:
            named = {**(getattr(team, column) or {}), **change.model_dump(exclude_unset=True)}
            values[column] = {name: value for name, value in named.items() if value is not None}
    for column, value in values.items():
        setattr(team, column, value)
    session.flush()
    document = changes.model_dump(mode="json", exclude_unset=True)
    audit.record(session, principal, "team_changed", name, team=name, **document)
    return team


def list_members(
    session: Session, principal: Principal, team: str, *, after: str | None = None, limit: int = 200
) -> Sequence[Membership]:
    """Return a team's members by name, from the one that follows `after`.

    Raises:
        NotFoundError: no such team, or it is not the caller's to see.
    """
    get_team(session, principal, team)
    query = select(Membership).where(Membership.team_name == team).order_by(Membership.user_name).limit(limit)
    if after is not None:
        query = query.where(Membership.user_name > after)
    return session.scalars(query).all()


def put_member(session: Session, principal: Principal, team: str, user: str, role: Role) -> tuple[Membership, bool]:
    """Take a user into a team, or change their role; returns the membership with whether it is new.

    A user who is not known yet is created: a name says nothing about other teams, and can do nothing without a token.

    Raises:
        NotFoundError: no such team, or it is not the caller's to see.
        ForbiddenError: the caller is no admin of it.
        ConflictError: the user was deleted, or is a service account of another team.
    """
    require_team_admin(principal, team)
    get_team(session, principal, team)
    ensure_user(session, user)
    row = session.get_one(User, user, with_for_update={"read": True})
    _check_is_there(row)
    if row.is_service:
        _check_has_no_other_team(session, user, team)
    is_new = session.get(Membership, (team, user)) is None
    upsert(session, Membership, [{"team_name": team, "user_name": user, "role": role}], keys=("team_name", "user_name"))
    audit.record(session, principal, "member_added" if is_new else "member_changed", user, team=team, role=role)
    return session.get_one(Membership, (team, user), populate_existing=True), is_new


def remove_member(session: Session, principal: Principal, team: str, user: str) -> None:
    """Take a user out of a team and revoke the tokens that spoke for them in it; they stay revoked.

    Raises:
        NotFoundError: no such team or member, or the team is not the caller's to see.
        ForbiddenError: the caller is no admin of it.
    """
    require_team_admin(principal, team)
    get_team(session, principal, team)
    member = session.get(Membership, (team, user))
    if member is None:
        raise NotFoundError(f"{user} is no member of team {team}", field="user")
    session.delete(member)
    theirs = (Token.team_name == team, Token.user_name == user, Token.revoked_at.is_(None))
    ended = tokens.end(session, principal, session.scalars(select(Token).where(*theirs).with_for_update()))
    revoked = sorted(token.id for token in ended)
    audit.record(session, principal, "member_removed", user, team=team, revoked_tokens=revoked)


def list_users(session: Session, principal: Principal, *, after: str | None = None, limit: int = 200) -> Sequence[User]:
    """Return all users by name, from the one that follows `after`.

    Raises:
        ForbiddenError: the caller is no cluster admin.
    """
    require_cluster_admin(principal)
    query = select(User).where(User.deleted_at.is_(None)).order_by(User.name).limit(limit)
    return session.scalars(query if after is None else query.where(User.name > after)).all()


def put_user(session: Session, principal: Principal, name: str, *, is_admin: bool) -> tuple[User, bool]:
    """Create a user, or change whether they are an admin of the service; returns the user with whether they are new.

    Whoever becomes an admin loses the tokens that no admin made: somebody who manages a team could hold one of them.

    Raises:
        ForbiddenError: the caller is no cluster admin.
        ConflictError: it would leave the service without an admin, the user was deleted, or a service account would
            become an admin.
    """
    require_cluster_admin(principal)
    if not is_admin:
        check_other_admin(session, name, field="is_admin")
    user = session.get(User, name, with_for_update=True)
    if user is not None:
        _check_is_there(user)
    if user is not None and user.is_service and is_admin:
        raise ConflictError(f"{name} is a service account, which has a team and a role in it", field="is_admin")
    is_new = user is None
    if is_admin and (user is None or not user.is_admin):
        end_lesser_tokens(session, principal, name)
    upsert(session, User, [{"name": name, "is_admin": is_admin}], keys=("name",))
    audit.record(session, principal, "user_created" if is_new else "user_changed", name, team=None, is_admin=is_admin)
    return session.get_one(User, name, populate_existing=True), is_new


def put_service_account(
    session: Session, principal: Principal, name: str, wanted: ServiceAccountWrite
) -> tuple[User, bool]:
    """Create a service account in a team, or change its role there; returns it with whether it is new.

    Raises:
        NotFoundError: no such team, or it is not the caller's to see.
        ForbiddenError: the caller is no admin of it.
        ConflictError: there is a person of this name, the account has another team, or it was deleted.
    """
    require_team_admin(principal, wanted.team)
    get_team(session, principal, wanted.team)
    is_new = session.get(User, name) is None
    insert_missing(session, User, [{"name": name, "is_service": True}], keys=("name",))
    user = session.get_one(User, name, with_for_update=True, populate_existing=True)
    if not user.is_service:
        raise ConflictError(f"there is a user {name} already who is no service account; choose another name", "user")
    if is_new:
        audit.record(session, principal, "service_account_created", name, team=wanted.team)
    put_member(session, principal, wanted.team, name, wanted.role)
    return user, is_new


def who_is(session: Session, principal: Principal, *, takes_code: bool) -> WhoAmI:
    """Return who the caller is and what they may do.

    Args:
        session: open for reading.
        principal: the caller.
        takes_code: whether the service takes uploaded code at all.
    """
    token = None if principal.token_id is None else session.get(Token, principal.token_id)
    return WhoAmI(
        user=principal.user,
        team=principal.team,
        role=principal.role,
        is_admin=principal.is_admin,
        token_id=principal.token_id,
        token_expires_at=None if token is None else token.expires_at,
        session_id=principal.session_id,
        capabilities=capabilities(principal, takes_code=takes_code),
    )


def check_other_admin(session: Session, name: str, *, field: str) -> None:
    """Refuse what would take the service its only admin.

    All admins' rows are locked, so that two admins who do it to each other at once can't both succeed.

    Raises:
        ConflictError: nobody but `name` is an admin who is not disabled.
    """
    active = select(User.name).where(User.is_admin, User.disabled_at.is_(None)).order_by(User.name)
    if list(session.scalars(active.with_for_update())) == [name]:
        raise ConflictError(f"{name} is the only admin of this service; make somebody else one first", field=field)


def end_lesser_tokens(session: Session, principal: Principal, name: str) -> None:
    """Revoke the tokens of a user who is to become an admin that neither an admin nor the service made."""
    admins = session.scalars(select(User.name).where(User.is_admin)).all()
    lesser = (Token.user_name == name, Token.revoked_at.is_(None), Token.created_by.not_in([*admins, SYSTEM]))
    tokens.end(session, principal, session.scalars(select(Token).where(*lesser).with_for_update()))


def ensure_team(session: Session, name: str) -> None:
    """Create a team without limits unless it exists."""
    insert_missing(session, Team, [{"name": name}], keys=("name",))


def ensure_user(session: Session, name: str) -> None:
    """Create a user unless they exist."""
    insert_missing(session, User, [{"name": name}], keys=("name",))


def _check_is_there(user: User) -> None:
    if user.deleted_at is not None:
        message = f"user {user.name} was deleted and the name stays with what they did; enable the user again"
        raise ConflictError(message, field="user")


def _check_has_no_other_team(session: Session, name: str, team: str) -> None:
    query = select(Membership.team_name).where(Membership.user_name == name, Membership.team_name != team)
    other = session.scalar(query)
    if other is not None:
        raise ConflictError(f"{name} is a service account of another team; each has one", field="user")


def _quota_columns(quota: Quota, *, only: set[str] | None = None) -> dict[str, Any]:
    limits = quota.model_dump(include=only)
    return {f"quota_{name}": limit for name, limit in limits.items()}
