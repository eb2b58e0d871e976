"""Requirements of jobs' own code: asked for by the API, locked by the leading dispatcher, named by jobs."""

from collections.abc import Sequence

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from xsam.services.bundles.service import check_is_on
from xsam.services.db.clock import db_now
from xsam.services.errors import ForbiddenError, InvalidRequestError, NotFoundError
from xsam.services.requirements import lines
from xsam.services.requirements.models import DONE, QUEUED, RUNNING, RequirementsLock
from xsam.services.settings import AllowedCode
from xsam.services.teams.roles import Actor

REUSED_S = 86_400.0
"""Requirements that were locked so lately are not locked anew: the same file, submitted again, is the same job."""


def submit(session: Session, text: str, *, actor: Actor, allowed: AllowedCode) -> RequirementsLock:
    """Ask for a lock; the team's own of the same text answers where it is less than a day old.

    Raises:
        ForbiddenError: the service takes no code, or no packages with it.
        InvalidRequestError: a line is not allowed here.
    """
    check_is_on(is_on=allowed.takes_bundles)
    _check_allowed(allowed)
    parsed = lines.parse(text)
    if allowed.dependencies == "locked":
        lines.check_locked(parsed)
    query = select(RequirementsLock).where(
        RequirementsLock.team == actor.team,
        RequirementsLock.requirements == text,
        RequirementsLock.error.is_(None),
        RequirementsLock.created_at > db_now(-REUSED_S),
    )
    known = session.scalars(query.order_by(RequirementsLock.created_at.desc()).limit(1)).first()
    if known is not None:
        return known
    row = RequirementsLock(team=actor.team, made_by=actor.user, requirements=text)
    session.add(row)
    session.flush()
    return row


def get(session: Session, requirements_id: str) -> RequirementsLock:
    """Return requirements and their lock.

    Raises:
        NotFoundError: there are none such.
    """
    row = session.get(RequirementsLock, requirements_id)
    if row is None:
        raise NotFoundError(f"no requirements {requirements_id}", field="requirements_id")
    return row


def team_of(session: Session, requirements_id: str) -> str | None:
    """Return the team whose requirements they are; None where there are none."""
    return session.scalar(select(RequirementsLock.team).where(RequirementsLock.id == requirements_id))


def check(session: Session, lock_id: str, *, team: str, allowed: AllowedCode) -> None:
    """Refuse a job whose packages its team may not have.

    Raises:
        ForbiddenError: the service takes no packages.
        InvalidRequestError: the team has no such lock.
    """
    _check_allowed(allowed)
    query = select(RequirementsLock.id).where(RequirementsLock.team == team, RequirementsLock.lock_id == lock_id)
    # Held until the caller's transaction ends, so that retention does not delete it while a job is added that names it.
    if session.scalar(query.limit(1).with_for_update(read=True)) is None:
        raise InvalidRequestError(
            f"requirements.lock is {lock_id}, which team {team} has not made", "requirements.lock"
        )


def lock_of(session: Session, lock_id: str) -> str | None:
    """Return the text of a lock, whoever made it: the name stands for the same text for ever."""
    query = select(RequirementsLock.lock).where(RequirementsLock.lock_id == lock_id)
    return session.scalar(query.limit(1))


def due(session: Session, *, limit: int) -> Sequence[tuple[str, str]]:
    """Return ids and texts that wait for a lock, oldest first."""
    query = select(RequirementsLock).where(RequirementsLock.state == QUEUED).order_by(RequirementsLock.created_at)
    return [(row.id, row.requirements) for row in session.scalars(query.limit(limit))]


def take(session: Session, requirements_id: str) -> bool:
    """Mark requirements as being locked; False if they no longer wait."""
    taken = (
        update(RequirementsLock)
        .where(RequirementsLock.id == requirements_id, RequirementsLock.state == QUEUED)
        .values(state=RUNNING)
    )
    return bool(session.execute(taken.returning(RequirementsLock.id)).first())


def answer(session: Session, requirements_id: str, *, lock: str | None, error: str | None) -> None:
    """Store what came of it; the first answer stays."""
    lock_id = None if lock is None else lines.id_of(lock)
    query = update(RequirementsLock).where(RequirementsLock.id == requirements_id, RequirementsLock.state != DONE)
    session.execute(query.values(state=DONE, lock=lock, lock_id=lock_id, error=error))


def take_back(session: Session) -> None:
    """Let requirements that an earlier dispatcher had taken wait again."""
    session.execute(update(RequirementsLock).where(RequirementsLock.state == RUNNING).values(state=QUEUED))


def forget_failed(session: Session) -> None:
    """Delete requirements of more than a day ago that have no lock; those of locks stay, since jobs name them."""
    old = RequirementsLock.created_at < db_now(-REUSED_S)
    session.execute(delete(RequirementsLock).where(old, RequirementsLock.lock_id.is_(None)))


def find_old(session: Session, *, days: float) -> Sequence[RequirementsLock]:
    """Return locks that were made more than so many days ago."""
    old = RequirementsLock.created_at < db_now(-days * 86_400.0)
    query = select(RequirementsLock).where(old, RequirementsLock.lock_id.is_not(None))
    return session.scalars(query.order_by(RequirementsLock.created_at)).all()


def lock(session: Session, requirements_id: str) -> bool:
    """Keep jobs from naming a lock until the caller's transaction ends; False if it is not there any more."""
    query = select(RequirementsLock.id).where(RequirementsLock.id == requirements_id).with_for_update()
    return session.scalar(query) is not None


def forget(session: Session, requirements_id: str) -> None:
    """Delete a lock that no job names."""
    session.execute(delete(RequirementsLock).where(RequirementsLock.id == requirements_id))


def _check_allowed(allowed: AllowedCode) -> None:
    if allowed.dependencies == "none":
        raise ForbiddenError(
            "this service installs no packages for its users: the operator has set XSAM_CODE__ALLOW_DEPENDENCIES=none",
            field="requirements",
        )
