"""The first view: the cluster now, my team, my jobs, what needs attention."""

from collections import Counter
from datetime import UTC, datetime, timedelta

from fastapi import Response
from sqlalchemy.orm import Session

from xsam.api.dashboard.pages import PageDep, Pages
from xsam.api.http.dependencies import ReadSession
from xsam.services.jobs import listing
from xsam.services.jobs.listing import JobFilter
from xsam.services.jobs.states import TERMINAL_STATES, JobState
from xsam.services.reports import attention, cluster, job_rows, usage, why
from xsam.services.reports.job_rows import JobRow
from xsam.services.studies import reading
from xsam.services.teams.roles import Principal

_LOOKED_AT = 200
_SHOWN = 5
_ALIVE = (JobState.RUNNING, JobState.QUEUED, JobState.PAUSED)
_DAY = timedelta(days=1)

pages = Pages()


@pages.get("/home")
def show_home(page: PageDep, session: ReadSession) -> Response:
    """Show what somebody wants to know first."""
    principal = page.principal
    found = cluster.overview(session, visible_team=principal.visible_team)
    line = why.queue(session, limit=_LOOKED_AT, visible_team=principal.visible_team)
    mine = [one for one in line.items if one.job_id and (one.user, one.team) == (principal.user, principal.team)]
    share = next((one for one in usage.usage(session).shares if one.team == principal.team), None)
    studies = reading.list_studies(
        session,
        where=JobFilter(states=_ALIVE, team=principal.visible_team),
        cursor=None,
        limit=_SHOWN,
    )
    held = [job for node in found.nodes for job in node.jobs if job.team == principal.team]
    return page.render(
        "home.html",
        cluster=found,
        line=line,
        my_first=mine[0] if mine else None,
        share=share,
        held_gpus=sum(one.num_gpus for one in held),
        held_cpus=sum(one.num_cpus for one in held),
        rows=_mine(session, principal),
        attention=attention.attention(session, principal, max_silence_s=page.service.settings.dispatcher.max_silence_s),
        ended=_ended(session, principal),
        studies=studies.items,
    )


def _mine(session: Session, principal: Principal) -> list[JobRow]:
    where = JobFilter(states=_ALIVE, team=principal.team, user=principal.user)
    found = listing.list_jobs(session, where=where, limit=_LOOKED_AT).jobs
    first = sorted(found, key=lambda job: job.state != JobState.RUNNING)[:_SHOWN]
    return job_rows.rows_of(session, first, visible_team=principal.visible_team)


def _ended(session: Session, principal: Principal) -> Counter[str]:
    """Return how the latest jobs of one day ended: by failure's kind, or `succeeded`, or `cancelled`."""
    where = JobFilter(states=tuple(TERMINAL_STATES), team=principal.visible_team)
    found = listing.list_jobs(session, where=where, limit=_LOOKED_AT).jobs
    since = datetime.now(UTC) - _DAY
    return Counter(job.failure_kind or job.state for job in found if job.finished_at and job.finished_at > since)
