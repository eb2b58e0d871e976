"""Checks of jobs' own code: asked for by the API, answered by the leading dispatcher."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from xsam.services.checks.models import DONE, QUEUED, RUNNING, CodeCheck
from xsam.services.db.clock import db_now
from xsam.services.errors import NotFoundError
from xsam.services.jobs.service import check_runnable
from xsam.services.settings import NO_CODE, AllowedCode
from xsam.services.specs.job import JobSpec
from xsam.services.teams.roles import Actor

KEPT_S = 86_400.0


def submit(session: Session, spec: JobSpec, *, actor: Actor, allowed: AllowedCode = NO_CODE) -> CodeCheck:
    """Ask for a check.

    Raises:
        InvalidRequestError, ForbiddenError, InfeasibleError: as the job's submit.
    """
    check_runnable(session, spec, team=actor.team, allowed=allowed)
    check = CodeCheck(team=actor.team, made_by=actor.user, spec=spec.model_dump(mode="json"))
    session.add(check)
    session.flush()
    return check


def get(session: Session, check_id: str) -> CodeCheck:
    """Return a check.

    Raises:
        NotFoundError: no such check, or it was more than a day ago.
    """
    check = session.get(CodeCheck, check_id)
    if check is None:
        raise NotFoundError(f"no check {check_id}", field="check_id")
    return check


def team_of(session: Session, check_id: str) -> str | None:
    """Return the team whose check it is; None where there is none."""
    return session.scalar(select(CodeCheck.team).where(CodeCheck.id == check_id))


def due(session: Session, *, limit: int) -> Sequence[tuple[str, JobSpec]]:
    """Return checks that wait, oldest first."""
    query = select(CodeCheck).where(CodeCheck.state == QUEUED).order_by(CodeCheck.created_at).limit(limit)
    return [(check.id, JobSpec.model_validate(check.spec)) for check in session.scalars(query)]


def take(session: Session, check_id: str) -> bool:
    """Mark a check as running; False if it no longer waits."""
    taken = update(CodeCheck).where(CodeCheck.id == check_id, CodeCheck.state == QUEUED).values(state=RUNNING)
    return bool(session.execute(taken.returning(CodeCheck.id)).first())


def answer(session: Session, check_id: str, found: Mapping[str, Any]) -> None:
    """Store what came of a check; the first answer stays."""
    query = update(CodeCheck).where(CodeCheck.id == check_id, CodeCheck.state != DONE)
    session.execute(query.values(state=DONE, answer=dict(found)))


def take_back(session: Session) -> None:
    """Let checks that an earlier dispatcher had taken wait again."""
    session.execute(update(CodeCheck).where(CodeCheck.state == RUNNING).values(state=QUEUED))


def forget_old(session: Session) -> None:
    """Delete checks of more than a day ago."""
    session.execute(delete(CodeCheck).where(CodeCheck.created_at < db_now(-KEPT_S)))
