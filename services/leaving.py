"""What the API calls when a team or a user leaves: disable, enable and delete, and what becomes of their jobs.

Nothing that was done is forgotten: jobs, studies, files and the audit trail stay, and admins of the service read them.
"""

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from xsam.services.errors import ConflictError, InvalidTransitionError
from xsam.services.jobs import verbs as jobs
from xsam.services.jobs.models import KIND_STUDY, KIND_TRIAL, Job
from xsam.services.jobs.states import TERMINAL_STATES, Wish
from xsam.services.reports import leftovers
from xsam.services.secrets import verbs as secrets
from xsam.services.studies import verbs as studies
from xsam.services.teams import closing
from xsam.services.teams.models import Team, User
from xsam.services.teams.roles import Principal, require_cluster_admin
from xsam.services.teams.schemas import DisabledRead, DisableWrite

MAX_JOBS = 1000
"""A call cancels so many jobs at most; one that leaves some says so, and the call can be repeated."""


def disable_team(session: Session, principal: Principal, name: str, wanted: DisableWrite) -> DisabledRead:
    """End a team's tokens and sessions, refuse it new jobs, and cancel those it has if that is wanted.

    Raises:
        ForbiddenError: the caller is no cluster admin.
        NotFoundError: no such team.
        ConflictError: it is the caller's own, or the one that the service can't be without.
    """
    ended = closing.disable_team(session, principal, name)
    return _disabled(session, principal, closing.get_team(session, name), ended, wanted)


def disable_user(session: Session, principal: Principal, name: str, wanted: DisableWrite) -> DisabledRead:
    """End a user's tokens and sessions in all teams, and cancel their jobs if that is wanted.

    Raises:
        ForbiddenError: the caller is no cluster admin.
        NotFoundError: no such user.
        ConflictError: it is the caller, or the only admin of the service.
    """
    ended = closing.disable_user(session, principal, name)
    return _disabled(session, principal, closing.get_user(session, name), ended, wanted)


def enable_team(session: Session, principal: Principal, name: str) -> Team:
    """Let a disabled or deleted team take jobs again; its tokens stay revoked, its members are back if it was disabled.

    Raises:
        ForbiddenError: the caller is no cluster admin.
        NotFoundError: there has never been one.
    """
    require_cluster_admin(principal)
    team = closing.get_team(session, name, lock=True)
    closing.enable(session, principal, team)
    return team


def enable_user(session: Session, principal: Principal, name: str) -> User:
    """Let a disabled or deleted user get tokens again; those that were revoked stay so.

    Raises:
        ForbiddenError: the caller is no cluster admin.
        NotFoundError: there has never been one.
    """
    require_cluster_admin(principal)
    user = closing.get_user(session, name, lock=True)
    closing.enable(session, principal, user)
    return user


def delete_team(session: Session, principal: Principal, name: str) -> None:
    """Disable a team for good: without members and secrets, and in no list.

    Raises:
        ForbiddenError: the caller is no cluster admin.
        NotFoundError: there has never been one.
        ConflictError: it has jobs that have not ended, is the caller's own, or can't be missed.
    """
    require_cluster_admin(principal)
    _check_is_idle(session, closing.get_team(session, name, lock=True))
    closing.delete_team(session, principal, name)
    secrets.forget(session, name)


def delete_user(session: Session, principal: Principal, name: str) -> None:
    """Disable a user for good: in no team, and in no list.

    Raises:
        ForbiddenError: the caller is no cluster admin.
        NotFoundError: there has never been one.
        ConflictError: they have jobs that have not ended, are the caller, or the only admin of the service.
    """
    require_cluster_admin(principal)
    _check_is_idle(session, closing.get_user(session, name))
    closing.delete_user(session, principal, name)


def _disabled(
    session: Session, principal: Principal, whose: Team | User, ended: closing.Access, wanted: DisableWrite
) -> DisabledRead:
    num_cancelled, has_more = _cancel(session, principal, whose) if wanted.cancel_jobs else (0, False)
    return DisabledRead(
        num_tokens=ended.num_tokens,
        num_sessions=ended.num_sessions,
        num_cancelled=num_cancelled,
        has_more=has_more,
    )


def _cancel(session: Session, principal: Principal, whose: Team | User) -> tuple[int, bool]:
    is_wanted = (Job.kind != KIND_TRIAL, Job.state.not_in(TERMINAL_STATES), leftovers.is_work_of(whose))
    is_not_asked = or_(Job.wish.is_(None), Job.wish != Wish.CANCEL)
    # In order of ids, so that two such calls lock the rows they share in the same order.
    query = select(Job.id, Job.kind).where(*is_wanted, is_not_asked).order_by(Job.id).limit(MAX_JOBS + 1)
    found = session.execute(query).all()
    num_cancelled = 0
    for job_id, kind in found[:MAX_JOBS]:
        cancel = studies.cancel if kind == KIND_STUDY else jobs.cancel
        try:
            with session.begin_nested():
                cancel(session, job_id, actor=principal)
            num_cancelled += 1
        except InvalidTransitionError:  # it ended a moment ago
            continue
    return num_cancelled, len(found) > MAX_JOBS


def _check_is_idle(session: Session, whose: Team | User) -> None:
    number = leftovers.num_live(session, whose)
    if number:
        what = "team" if isinstance(whose, Team) else "user"
        raise ConflictError(
            f"{what} {whose.name} has {number} jobs that have not ended; disable the {what} and cancel them, or wait",
            field=what,
        )
