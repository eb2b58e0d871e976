"""The lab: the figures of the paper with the newest verdict of each, and one run with its picture."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Query, Response
from pydantic import Field

from xsam.api.dashboard.pages import PageDep, Pages, ViewQuery
from xsam.api.dashboard.visitors import FormDep
from xsam.api.http.dependencies import ReadSession, WriteSession
from xsam.api.http.queries import LabRunId
from xsam.services.errors import NotFoundError
from xsam.services.lab import service, verbs
from xsam.services.lab.figures.catalog import FIGURES
from xsam.services.lab.models import FAILED, RUNNING, LabRun
from xsam.services.lab.report import VERDICTS, interval
from xsam.services.lab.schemas import LabRunRead, LabRunRow

pages = Pages()


@dataclass(frozen=True, slots=True)
class Verb:
    """What a run in a state may be told."""

    name: str
    label: str
    tone: str
    state: str
    act: Callable[..., LabRun]


VERBS = (
    Verb("cancel", "Cancel", "danger", RUNNING, verbs.cancel),
    Verb("resume", "Try again", "primary", FAILED, verbs.resume),
)


class LabView(ViewQuery):
    """Which runs are shown."""

    cursor: Annotated[str, Field(max_length=500)] | None = None


@pages.get("/lab")
def show_lab(page: PageDep, session: ReadSession, view: Annotated[LabView, Query()]) -> Response:
    """Show all figures, and a page of the runs that the visitor may see."""
    team = page.principal.visible_team
    runs, later = service.list_runs(session, team=team, cursor=view.cursor)
    return page.render(
        "lab.html",
        figures=service.figures(),
        runs=[LabRunRow.of(run) for run in runs],
        verdicts=VERDICTS,
        view=view,
        state=view.changed(),
        later=later,
    )


@pages.get("/lab/{run_id}")
def show_lab_run(page: PageDep, session: ReadSession, run_id: LabRunId) -> Response:
    """Show one run: claim, verdict, picture, caption, stages."""
    run = LabRunRead.of(service.get(session, run_id))
    found = run.finding
    return page.render(
        "lab_run.html",
        run=run,
        figure=FIGURES[run.figure],
        verdict=None if run.verdict is None else VERDICTS[run.verdict],
        verbs=[verb for verb in VERBS if verb.state == run.state],
        intervals=[] if found is None else [interval(one) for one in found.estimates],
    )


@pages.post("/lab/{run_id}/{verb}")
def tell_lab_run(run_id: LabRunId, verb: str, page: PageDep, session: WriteSession, form: FormDep) -> Response:
    """Cancel a run, or take a failed one up again."""
    known = next((one for one in VERBS if one.name == verb), None)
    if known is None:
        raise NotFoundError(f"no verb {verb[:40]}; there are {', '.join(one.name for one in VERBS)}")
    known.act(session, run_id, actor=page.principal)
    return page.go(f"/lab/{run_id}")
