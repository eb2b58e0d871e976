"""What is asked about secrets: which ones a team has, whether a job may name them, and their values for its ranks."""

from collections.abc import Mapping, Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from xsam.services.errors import ForbiddenError, InvalidRequestError, StorageError
from xsam.services.secrets import sealing
from xsam.services.secrets.models import Secret
from xsam.services.teams import service as teams
from xsam.services.teams.roles import Principal


def list_all(session: Session, principal: Principal, team: str) -> Sequence[Secret]:
    """Return a team's secrets by name.

    Raises:
        NotFoundError: no such team, or it is not the caller's to see.
    """
    teams.get_team(session, principal, team)
    return session.scalars(select(Secret).where(Secret.team == team).order_by(Secret.name)).all()


def number_of(session: Session, team: str) -> int:
    """Return how many secrets a team has."""
    return session.scalar(select(func.count()).where(Secret.team == team)) or 0


def unopened(session: Session, keys: Sequence[str]) -> Sequence[Secret]:
    """Return the secrets of all teams that none of the keys opens: those that no job can have."""
    return [row for row in session.scalars(select(Secret).order_by(Secret.team, Secret.name)) if not _opens(row, keys)]


def _opens(row: Secret, keys: Sequence[str]) -> bool:
    try:
        sealing.unseal(row.sealed, team=row.team, name=row.name, keys=keys)
    except (ForbiddenError, StorageError):
        return False
    return True


def check(session: Session, names: Sequence[str], *, team: str) -> None:
    """Refuse a job that names a secret its team does not have.

    Raises:
        InvalidRequestError: it does; says which ones there are.
    """
    if not names:
        return
    known = session.scalars(select(Secret.name).where(Secret.team == team).order_by(Secret.name)).all()
    for number, name in enumerate(names):
        if name not in known:
            allowed = ", ".join(known) or "none yet; the team's admins set them with `xsam secret set`"
            raise InvalidRequestError(
                f"secrets.{number} is {name!r}, which team {team} does not have; allowed are: {allowed}",
                field=f"secrets.{number}",
            )


def values(session: Session, names: Sequence[str], *, team: str, keys: Sequence[str]) -> Mapping[str, str]:
    """Return the values of secrets by name, for the ranks of a job of this team and for nobody else.

    Raises:
        InvalidRequestError: the team does not have one of them, any more perhaps.
        ForbiddenError: the operator has set no key.
        StorageError: none of the keys opens one of them.
    """
    check(session, names, team=team)
    rows = session.scalars(select(Secret).where(Secret.team == team, Secret.name.in_(names)))
    return {row.name: sealing.unseal(row.sealed, team=team, name=row.name, keys=keys) for row in rows}
