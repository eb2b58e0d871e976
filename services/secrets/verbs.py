"""What the API calls to set and delete secrets; a team's admins do."""

from collections.abc import Sequence

from sqlalchemy import delete
from sqlalchemy.orm import Session

from xsam.services.db.clock import utc_now
from xsam.services.db.upsert import upsert
from xsam.services.errors import ConflictError, NotFoundError
from xsam.services.secrets import sealing
from xsam.services.secrets.models import Secret
from xsam.services.secrets.schemas import SecretWrite
from xsam.services.secrets.service import number_of
from xsam.services.teams import audit
from xsam.services.teams import service as teams
from xsam.services.teams.roles import Principal, require_team_admin

MAX_SECRETS = 100
"""Of a team."""


def put(
    session: Session, principal: Principal, team: str, name: str, wanted: SecretWrite, *, keys: Sequence[str]
) -> Secret:
    """Set a secret, or replace its value; jobs that run keep the one they have.

    Raises:
        NotFoundError: no such team, or it is not the caller's to see.
        ForbiddenError: the caller is no admin of it, or the operator has set no key.
        ConflictError: the team has as many as it may.
    """
    require_team_admin(principal, team)
    teams.get_team(session, principal, team)
    sealed = sealing.seal(wanted.value, team=team, name=name, keys=keys)
    number = number_of(session, team)
    if number >= MAX_SECRETS and session.get(Secret, (team, name)) is None:
        raise ConflictError(f"team {team} has {number} secrets; allowed are at most {MAX_SECRETS}", field="team")
    row = {"team": team, "name": name, "sealed": sealed, "set_by": principal.user, "set_at": utc_now()}
    upsert(session, Secret, [row], keys=("team", "name"))
    audit.record(session, principal, "secret_set", name, team=team)
    return session.get_one(Secret, (team, name), populate_existing=True)


def remove(session: Session, principal: Principal, team: str, name: str) -> None:
    """Delete a secret; jobs that name it and have not started fail when they do.

    Raises:
        NotFoundError: no such team or secret, or it is not the caller's to see.
        ForbiddenError: the caller is no admin of the team.
    """
    require_team_admin(principal, team)
    row = session.get(Secret, (team, name))
    if row is None:
        raise NotFoundError(f"team {team} has no secret {name}", field="secret")
    session.delete(row)
    audit.record(session, principal, "secret_deleted", name, team=team)


def forget(session: Session, team: str) -> None:
    """Delete all secrets of a team that is deleted: nobody may find them who makes one of that name again."""
    session.execute(delete(Secret).where(Secret.team == team))
