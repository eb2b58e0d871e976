"""What a team or a user would leave behind: said before they are disabled or deleted, and true afterwards."""

from datetime import datetime

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from xsam.services.bundles.models import BundleRow
from xsam.services.jobs.models import KIND_STUDY, Job
from xsam.services.jobs.states import TERMINAL_STATES, JobState
from xsam.services.schemas import Read
from xsam.services.secrets.models import Secret
from xsam.services.teams import closing
from xsam.services.teams.models import Membership, Team, User
from xsam.services.teams.roles import Principal, require_cluster_admin


class LeftoversRead(Read):
    """What a team or a user has: its access, which ends when it is disabled, and its work, which stays."""

    name: str
    disabled_at: datetime | None
    deleted_at: datetime | None
    num_memberships: int
    """Of a team its members, of a user their teams."""
    num_tokens: int
    """Valid ones, those that were made with them included: they end together."""
    num_sessions: int
    """Open sessions of browsers."""
    num_running_jobs: int
    """Trials of studies included, as in the other numbers of jobs."""
    num_queued_jobs: int
    num_paused_jobs: int
    num_ended_jobs: int
    num_live_studies: int
    """Queued, running or paused."""
    num_ended_studies: int
    num_bundles: int
    """Folders of code: those the team may use, those the user has uploaded."""
    bundle_bytes: int
    """Of them, as packed."""
    num_secrets: int = 0
    """Of a team those it has, which end when it is deleted; of a user those they set last, which somebody else may want
    to replace."""


def of_team(session: Session, principal: Principal, name: str) -> LeftoversRead:
    """Return what a team has, a deleted one as well.

    Raises:
        ForbiddenError: the caller is no cluster admin.
        NotFoundError: there has never been one.
    """
    require_cluster_admin(principal)
    return _leftovers(session, closing.get_team(session, name))


def of_user(session: Session, principal: Principal, name: str) -> LeftoversRead:
    """Return what a user has in all teams, a deleted one as well.

    Raises:
        ForbiddenError: the caller is no cluster admin.
        NotFoundError: there has never been one.
    """
    require_cluster_admin(principal)
    return _leftovers(session, closing.get_user(session, name))


def is_work_of(whose: Team | User) -> ColumnElement[bool]:
    """Return the condition for the jobs of a team or a user, of every kind."""
    return Job.team == whose.name if isinstance(whose, Team) else Job.submitted_by == whose.name


def num_live(session: Session, whose: Team | User) -> int:
    """Return how many jobs of any kind have not ended."""
    live = select(func.count()).select_from(Job).where(is_work_of(whose), Job.state.not_in(TERMINAL_STATES))
    return session.scalar(live) or 0


def _leftovers(session: Session, whose: Team | User) -> LeftoversRead:
    access = closing.access_of(session, whose)
    is_study = Job.kind == KIND_STUDY
    counts = select(Job.state, is_study, func.count()).where(is_work_of(whose)).group_by(Job.state, is_study)
    studies: dict[str, int] = {}
    jobs: dict[str, int] = {}
    for state, is_of_studies, number in session.execute(counts):
        (studies if is_of_studies else jobs)[state] = number
    theirs = BundleRow.team == whose.name if isinstance(whose, Team) else BundleRow.made_by == whose.name
    bundles = select(func.count(), func.coalesce(func.sum(BundleRow.packed_bytes), 0)).where(theirs)
    num_bundles, bundle_bytes = session.execute(bundles).one()
    own_secrets = Secret.team == whose.name if isinstance(whose, Team) else Secret.set_by == whose.name
    members = select(func.count()).select_from(Membership).where(closing.is_member(whose))
    return LeftoversRead(
        name=whose.name,
        disabled_at=whose.disabled_at,
        deleted_at=whose.deleted_at,
        num_memberships=session.scalar(members) or 0,
        num_tokens=access.num_tokens,
        num_sessions=access.num_sessions,
        num_running_jobs=jobs.get(JobState.RUNNING, 0),
        num_queued_jobs=jobs.get(JobState.QUEUED, 0),
        num_paused_jobs=jobs.get(JobState.PAUSED, 0),
        num_ended_jobs=sum(jobs.get(state, 0) for state in TERMINAL_STATES),
        num_live_studies=sum(number for state, number in studies.items() if state not in TERMINAL_STATES),
        num_ended_studies=sum(studies.get(state, 0) for state in TERMINAL_STATES),
        num_bundles=num_bundles,
        bundle_bytes=int(bundle_bytes),
        num_secrets=session.scalar(select(func.count()).where(own_secrets)) or 0,
    )
