"""The number by which a node knows a team: its ranks' user id is that many above the operator's first one."""

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from xsam.services.db.session import Database
from xsam.services.teams import service
from xsam.services.teams.models import Team

_FIRST = 0


def number_of(database: Database, team: str) -> int:
    """Return a team's number, which it keeps for good; it gets one when it is asked for the first time."""
    while True:
        with database.read() as session:
            known = session.scalar(select(Team.number).where(Team.name == team))
        if known is not None:
            return known
        try:
            with database.unit_of_work() as session:
                _give(session, team)
        except IntegrityError:
            continue  # at this moment another team got it


def _give(session: Session, team: str) -> None:
    service.ensure_team(session, team)
    following = select(func.coalesce(func.max(Team.number) + 1, _FIRST)).scalar_subquery()
    session.execute(
        update(Team).where(Team.name == team, Team.number.is_(None)).values(number=following),
        execution_options={"synchronize_session": False},
    )
