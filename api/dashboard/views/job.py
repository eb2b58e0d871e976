"""One job: its curves, searches, log, events, files, specification, and why it stands where it does."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any

import yaml
from fastapi import Query, Response
from pydantic import Field
from sqlalchemy.orm import Session

from xsam.api.dashboard.copying import of_job
from xsam.api.dashboard.pages import Page, PageDep, Pages, ViewQuery
from xsam.api.dashboard.visitors import FormDep
from xsam.api.formats import work
from xsam.api.http.access import visible_team
from xsam.api.http.dependencies import AllowedCodeDep, ReadSession, WriteSession
from xsam.api.http.queries import JobId
from xsam.services.artifacts import service as artifacts
from xsam.services.artifacts import store
from xsam.services.artifacts.logs import LogLine, read_lines
from xsam.services.artifacts.store import log_prefix
from xsam.services.errors import NotFoundError
from xsam.services.jobs import events, verbs
from xsam.services.jobs import service as jobs
from xsam.services.jobs.models import Job
from xsam.services.jobs.schemas import AttemptRead, EventRead, JobRead
from xsam.services.jobs.states import JobState
from xsam.services.lab import service as lab
from xsam.services.lab.spec import PLANE_FIGURE, LabSpec
from xsam.services.metrics import service as metrics
from xsam.services.metrics.schemas import EpochRead
from xsam.services.reports import why
from xsam.services.retention import schemas as retention

TABS = ("curves", "alpha", "logs", "events", "files", "spec", "why")
_PLAIN_EPOCHS = 200
"""Rows of the table that stands in for the curves where there is no JavaScript."""
_PLAIN_LINES = 500
_EVENTS = 500
_RECENT_EPOCHS = 5

pages = Pages()


class JobView(ViewQuery):
    """Which part of a job is looked at, and how."""

    tab: Annotated[str, Field(pattern=f"^({'|'.join(TABS)})$")] = "curves"
    attempt: Annotated[int, Field(ge=1, le=10_000)] | None = None
    rank: Annotated[int, Field(ge=0, le=100_000)] | None = None
    x: Annotated[str, Field(pattern="^(epoch|step|time|evals)$")] = "epoch"
    """What the curves are drawn over."""
    smooth: Annotated[float, Field(ge=0, lt=1)] = 0.0
    log: bool = False
    """Whether losses are drawn on a logarithmic axis."""
    search: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    """Step of the search for alpha* whose curve is shown."""
    find: Annotated[str, Field(max_length=200)] | None = None
    """Text to find in the log."""
    line: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    """A line of the log, as a link names it."""


@dataclass(frozen=True, slots=True)
class Verb:
    """Something that can be done to a job."""

    name: str
    title: str
    states: frozenset[JobState]
    act: Callable[..., Job]
    asks: str | None = None
    """What is asked before it is done; None where it can be undone."""


_ALIVE = frozenset({JobState.QUEUED, JobState.RUNNING, JobState.PAUSED})
VERBS = (
    Verb("pause", "Pause", frozenset({JobState.QUEUED, JobState.RUNNING}), verbs.pause),
    Verb("resume", "Resume", frozenset({JobState.PAUSED}), verbs.resume),
    Verb("retry", "Retry", frozenset({JobState.FAILED, JobState.CANCELLED}), verbs.retry),
    Verb("cancel", "Cancel…", _ALIVE, verbs.cancel, asks="Cancel this job? Its checkpoints stay, a retry goes on."),
)


@pages.get("/jobs/{job_id}")
def show_job(job_id: JobId, page: PageDep, session: ReadSession, view: Annotated[JobView, Query()]) -> Response:
    """Show a job."""
    job = jobs.get(session, job_id)
    read = JobRead.of(job)
    attempts = [AttemptRead.model_validate(row) for row in jobs.list_attempts(session, job_id)]
    return page.render(
        "job.html",
        job=read,
        view=view,
        state=view.changed(),
        tabs=TABS,
        can_be_looked_at=_can_be_looked_at(session, page, read),
        verbs=[verb for verb in VERBS if read.state in verb.states],
        attempts=attempts,
        left_s=_left_s(session, read),
        work=work(read.spec),
        copies=of_job(read),
        placement=sorted(set(job.placement or ())),
        **_TABS[view.tab](page, session, job, view),
    )


@pages.post("/jobs/{job_id}/plane")
def look_at_job(
    job_id: JobId, page: PageDep, session: WriteSession, allowed: AllowedCodeDep, form: FormDep
) -> Response:
    """Begin a run of the lab that looks at the loss around the job's checkpoints."""
    spec = LabSpec(figure=PLANE_FIGURE, job=job_id)
    run, _ = lab.submit(session, spec, actor=page.principal, allowed=allowed)
    return page.go(f"/lab/{run.id}")


@pages.post("/jobs/{job_id}/{verb}")
def act_on_job(job_id: JobId, verb: str, page: PageDep, session: WriteSession, form: FormDep) -> Response:
    """Do what a button of the job's page says."""
    known = next((one for one in VERBS if one.name == verb), None)
    if known is None:
        raise NotFoundError(f"no verb {verb[:40]}; there are {', '.join(one.name for one in VERBS)}")
    known.act(session, job_id, actor=page.principal)
    return page.go(f"/jobs/{job_id}")


def _can_be_looked_at(session: Session, page: Page, job: JobRead) -> bool:
    own = job.team == page.principal.team and job.spec.plane is None and job.spec.entrypoint is None
    return own and bool(artifacts.list_checkpoints(session, job.id))


def _left_s(session: Session, job: JobRead) -> float | None:
    """Return how long a running job will take from here, by the pace of its latest epochs."""
    done = job.progress.epochs_done
    if job.state is not JobState.RUNNING or not done:
        return None
    recent = metrics.list_epochs(session, job.id, after=max(done - _RECENT_EPOCHS, 0))
    return sum(one.epoch_s for one in recent) / len(recent) * (job.progress.num_epochs - done) if recent else None


def _curves(page: Page, session: Session, job: Job, view: JobView) -> Mapping[str, Any]:
    epochs = metrics.list_epochs(session, job.id)
    step = max(len(epochs) // _PLAIN_EPOCHS, 1)
    return {"epochs": epochs[::step], "own_metrics": _own_metrics(epochs)}


def _own_metrics(epochs: Any) -> list[str]:
    return list(dict.fromkeys(name for one in epochs[:1] for name in EpochRead.model_validate(one).metrics))


def _alpha(page: Page, session: Session, job: Job, view: JobView) -> Mapping[str, Any]:
    """Searches stand in a table, of which neighbours are one row where they are many; charts read them from REST."""
    found = metrics.alpha_map(session, job.id, columns=_PLAIN_EPOCHS)
    return {"map": found, "edge_share": (found.low_edge_share or 0) + (found.high_edge_share or 0)}


def _logs(page: Page, session: Session, job: Job, view: JobView) -> Mapping[str, Any]:
    attempt = view.attempt or job.attempt
    lines: Iterator[LogLine] = iter(())
    if attempt:
        lines = read_lines(page.service.store.local(log_prefix(job.id, attempt)), rank=view.rank)
    return {"attempt": attempt, "lines": list(islice(lines, _PLAIN_LINES)), "most_lines": _PLAIN_LINES}


def _events(page: Page, session: Session, job: Job, view: JobView) -> Mapping[str, Any]:
    found = events.list_events(session, job.id, after=0, limit=_EVENTS)
    return {"events": [EventRead.of(event) for event in found]}


def _files(page: Page, session: Session, job: Job, view: JobView) -> Mapping[str, Any]:
    files = store.list_files(page.service.store, job.id)
    return {"files": files, "gone": retention.gone(session, job.id)}


def _spec(page: Page, session: Session, job: Job, view: JobView) -> Mapping[str, Any]:
    spec = JobRead.of(job).spec
    return {
        "chosen": _yaml(spec.model_dump(mode="json", exclude_defaults=True)),
        "whole": _yaml(spec.model_dump(mode="json")),
    }


def _why(page: Page, session: Session, job: Job, view: JobView) -> Mapping[str, Any]:
    return {"why": why.explain(session, job.id, visible_team=visible_team(page.principal, None))}


def _yaml(document: Mapping[str, Any]) -> str:
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True) if document else "{}\n"


_TABS: Mapping[str, Callable[[Page, Session, Job, JobView], Mapping[str, Any]]] = {
    "curves": _curves,
    "alpha": _alpha,
    "logs": _logs,
    "events": _events,
    "files": _files,
    "spec": _spec,
    "why": _why,
}
