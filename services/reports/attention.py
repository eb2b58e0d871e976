"""What somebody should look at: stalled and idle jobs, paused studies, a reached quota, a token that ends soon."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from xsam.services.cluster.service import live_nodes
from xsam.services.db.clock import db_now
from xsam.services.jobs.models import KIND_STUDY, Job
from xsam.services.jobs.states import TERMINAL_STATES, JobState
from xsam.services.reports.schemas import AttentionRead, NamedRead, ReachedRead
from xsam.services.studies.models import Study
from xsam.services.teams.models import Team, Token
from xsam.services.teams.roles import Principal

TOKEN_NOTICE = timedelta(days=7)
"""So long before its end a token is spoken of."""
_STALLED_SHARE = 0.5
"""Of the silence after which a job is asked to come back: from here on somebody may want to know."""
_MOST = 20


def attention(session: Session, principal: Principal, *, max_silence_s: float) -> AttentionRead:
    """Return what needs a look.

    Args:
        session: open for reading.
        principal: whose team, and whose token.
        max_silence_s: after which a running job without progress is asked to come back.
    """
    return AttentionRead(
        stalled=_stalled(session, principal.team, _STALLED_SHARE * max_silence_s),
        idle=_idle(session, principal.team),
        idle_paused=_idle_paused(session, principal.team),
        paused=_paused(session, principal.team),
        reached=list(_reached(session, principal.team)),
        token_expires_at=_ends_soon(session, principal.token_id),
    )


def _stalled(session: Session, team: str, silence_s: float) -> list[NamedRead]:
    query = select(Job.id, Job.name).where(
        Job.team == team, Job.state == JobState.RUNNING, Job.kind != KIND_STUDY, Job.reported_at <= db_now(-silence_s)
    )
    rows = session.execute(query.order_by(Job.reported_at).limit(_MOST))
    return [NamedRead(id=row.id, name=row.name) for row in rows]


def _idle(session: Session, team: str) -> list[NamedRead]:
    query = select(Job.id, Job.name).where(
        Job.team == team, Job.state == JobState.RUNNING, Job.idle_warned_at.is_not(None)
    )
    rows = session.execute(query.order_by(Job.idle_warned_at).limit(_MOST))
    return [NamedRead(id=row.id, name=row.name) for row in rows]


def _idle_paused(session: Session, team: str) -> list[NamedRead]:
    query = select(Job.id, Job.name).where(
        Job.team == team, Job.state == JobState.PAUSED, Job.idle_paused_at.is_not(None)
    )
    rows = session.execute(query.order_by(Job.state_since).limit(_MOST))
    return [NamedRead(id=row.id, name=row.name) for row in rows]


def _paused(session: Session, team: str) -> list[NamedRead]:
    is_paused = or_(Study.hold == "pause", Job.state == JobState.PAUSED)
    query = select(Job.id, Job.name).join(Study, Study.job_id == Job.id)
    query = query.where(Job.team == team, is_paused, Job.state.not_in(TERMINAL_STATES))
    rows = session.execute(query.order_by(Job.created_at).limit(_MOST))
    return [NamedRead(id=row.id, name=row.name) for row in rows]


def _reached(session: Session, name: str) -> Iterator[ReachedRead]:
    team = session.get(Team, name)
    if team is None:
        return
    sums = select(
        func.coalesce(func.sum(Job.num_workers * Job.gpus_per_worker), 0),
        func.coalesce(func.sum(Job.num_workers * Job.cpus_per_worker), 0),
        func.count(),
    ).where(Job.team == name, Job.state == JobState.RUNNING, Job.kind != KIND_STUDY)
    gpus, cpus, num = session.execute(sums).one()
    limits = (("gpus", team.quota_gpus, gpus), ("cpus", team.quota_cpus, cpus))
    counted = (*limits, ("running_jobs", team.quota_running_jobs, num))
    for what, limit, held in counted:
        if limit is not None and held >= limit > 0:
            yield ReachedRead(what=what, gpu_kind=None, limit=limit, held=held)
    of_kinds = team.quota_gpus_by_kind or {}
    held_of_kinds = _held_of_kinds(session, name) if of_kinds else {}
    for kind, limit in sorted(of_kinds.items()):
        if held_of_kinds.get(kind, 0.0) >= limit > 0:
            yield ReachedRead(what="gpus", gpu_kind=kind, limit=limit, held=held_of_kinds[kind])


def _held_of_kinds(session: Session, team: str) -> Mapping[str, float]:
    """Return how many GPUs of each kind, in lower case, the team's running jobs hold: by the nodes that they are on."""
    kinds = {node.id: (node.gpu_kind or "").lower() for node in live_nodes(session)}
    query = select(Job.placement, Job.gpus_per_worker).where(
        Job.team == team, Job.state == JobState.RUNNING, Job.gpus_per_worker > 0
    )
    held: defaultdict[str, float] = defaultdict(float)
    for placement, gpus in session.execute(query):
        for node_id in placement or ():
            held[kinds.get(node_id, "")] += gpus
    return held


def _ends_soon(session: Session, token_id: str | None) -> datetime | None:
    if token_id is None:
        return None
    soon = select(Token.expires_at).where(
        Token.id == token_id, Token.expires_at <= db_now(TOKEN_NOTICE.total_seconds())
    )
    return session.scalar(soon)
