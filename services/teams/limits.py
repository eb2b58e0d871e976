"""What teams may hold, as the scheduler reads it, and the check that a request fits into it at all."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from xsam.services.errors import InfeasibleError
from xsam.services.specs.job import Resources
from xsam.services.teams.models import Team
from xsam.services.teams.quota import TeamQuota


def quotas(session: Session) -> dict[str, TeamQuota]:
    """Return the limits of every team that has any."""
    found = {team.name: _quota(team) for team in session.scalars(select(Team))}
    return {name: quota for name, quota in found.items() if quota != TeamQuota()}


def weights(session: Session) -> dict[str, float]:
    """Return the weight of every team; one without a row has weight 1."""
    return {team.name: team.weight for team in session.scalars(select(Team))}


def retention(session: Session) -> dict[str, Mapping[str, Any]]:
    """Return what each team keeps otherwise than the service does, as `Retention` documents."""
    rows = session.execute(select(Team.name, Team.retention).where(Team.retention.is_not(None)))
    return {name: document for name, document in rows if document}


def idle(session: Session) -> dict[str, Mapping[str, Any]]:
    """Return what each team does about idle GPUs otherwise than the service does, as `IdlePolicy` documents."""
    rows = session.execute(select(Team.name, Team.idle).where(Team.idle.is_not(None)))
    return {name: document for name, document in rows if document}


def row_of(session: Session, team: str, *, holds: bool = False) -> Team | None:
    """Return a team's row; None where it has none, and so no limits.

    Args:
        session: of the caller.
        team: its name.
        holds: whether to keep the team as it is until the caller's transaction ends, so that none is deleted while a
            job is added to it.
    """
    return session.get(Team, team, with_for_update={"read": True} if holds else None)


def check_quota(row: Team | None, wanted: Resources) -> None:
    """Refuse a request that exceeds the team's whole quota: it would wait for ever. What others hold does not matter.

    Raises:
        InfeasibleError: it asks for more than the team may ever hold, or the team is disabled.
    """
    check_is_open(row)
    if row is None:
        return
    team = row.name
    quota = _quota(row)
    if quota.running_jobs == 0:
        raise InfeasibleError(f"team {team} may run no jobs: its quota of running jobs is 0")
    for name, per_worker, limit in (
        ("gpus", wanted.gpus_per_worker, quota.gpus),
        ("cpus", wanted.cpus_per_worker, quota.cpus),
    ):
        asked = wanted.num_workers * per_worker
        if limit is not None and asked > limit:
            raise InfeasibleError(
                f"the job asks for {asked:g} {name.upper()[:-1]}s ({wanted.num_workers} x {per_worker:g}), "
                f"but team {team} may hold {limit:g}",
                field="resources.num_workers" if per_worker <= limit else f"resources.{name}_per_worker",
            )
    of_kind = quota.gpus_by_kind.get((wanted.gpu_kind or "").lower())
    asked = wanted.num_workers * wanted.gpus_per_worker
    if of_kind is not None and asked > of_kind:
        raise InfeasibleError(
            f"the job asks for {asked:g} GPUs of kind {wanted.gpu_kind}, but team {team} may hold {of_kind:g} of them",
            field="resources.gpu_kind",
        )


def check_is_open(row: Team | None) -> None:
    """Refuse new work of a team that is disabled.

    Raises:
        InfeasibleError: it is.
    """
    if row is not None and row.disabled_at is not None:
        raise InfeasibleError(
            f"team {row.name} is disabled and takes no new jobs; an admin of the service can enable it"
        )


def _quota(team: Team) -> TeamQuota:
    return TeamQuota(
        gpus=team.quota_gpus,
        cpus=team.quota_cpus,
        running_jobs=team.quota_running_jobs,
        gpus_by_kind=team.quota_gpus_by_kind or {},
    )
