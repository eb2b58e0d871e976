"""One study: its verdict, charts, trials and rungs, the answer, the specification, and what can be told to it."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from fastapi import Query, Request, Response
from pydantic import Field
from sqlalchemy.orm import Session

from xsam.api.dashboard import documents
from xsam.api.dashboard.copying import of_study
from xsam.api.dashboard.pages import Page, PageDep, Pages, ViewQuery
from xsam.api.dashboard.visitors import Form, FormDep
from xsam.api.http.dependencies import AllowedCodeDep, ReadSession
from xsam.api.http.queries import Cursor, StudyId
from xsam.services.errors import InvalidRequestError, ServiceError
from xsam.services.jobs.states import JobState, is_terminal
from xsam.services.settings import AllowedCode
from xsam.services.studies import reading, rungs, verbs
from xsam.services.studies.reading import TrialFilter, TrialSort
from xsam.services.studies.schemas import StudyRead, TrialPage

pages = Pages()

TABS = ("live", "trials", "rungs", "answer", "spec")
_ROWS = 50
_FIELDS = ("num_trials", "space", "trial", "changes")
"""Of the dialogs; what was refused is shown again."""
_PLAIN_VERBS: Mapping[str, Callable[..., Any]] = {
    "pause": verbs.pause,
    "resume": verbs.resume,
    "stop": verbs.stop,
    "cancel": verbs.cancel,
    "retry-failed": verbs.retry_failed,
}
_WITH_FIELDS = ("concurrency", "extend", "promote")
_WITH_DIALOG = ("cancel", "retry-failed", "extend", "promote")
_Path = Annotated[str, Field(max_length=100)]
_Paths = Annotated[list[_Path], Field(max_length=24, default_factory=list)]
_Brushes = Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=24, default_factory=list)]
_States = Annotated[list[JobState], Field(default_factory=list)]


class StudyView(ViewQuery):
    """What of a study is shown, and how."""

    tab: Literal["live", "trials", "rungs", "answer", "spec"] = "live"
    do: Literal["", "extend", "promote", "cancel", "retry-failed"] = ""
    """Which dialog is open where there is no script to open it."""
    arm: _Paths
    """Arms that are shown; none named: all."""
    phase: Literal["", "search", "confirm"] = ""
    state: _States
    sort: TrialSort | None = None
    """By default the best first."""
    cursor: Cursor = None
    x: Literal["evals", "trials", "time"] = "evals"
    """What the best so far is drawn over."""
    across: _Path | None = None
    down: _Path | None = None
    stat: Literal["best", "mean", "count"] = "best"
    color: Literal["arm", "value"] = "arm"
    brush: _Brushes
    """`axis:low..high`, as drawn on the charts."""
    log: _Paths
    """Axes whose scale is turned: logarithmic instead of linear, or the other way."""
    flip: _Paths
    order: _Paths
    """Axes from left to right."""
    top: Annotated[int, Field(ge=1, le=500)] = 20
    trial: Annotated[int, Field(ge=1)] | None = None
    """The one that is marked."""


@pages.get("/studies/{study_id}")
def show_study(study_id: StudyId, page: PageDep, session: ReadSession, view: Annotated[StudyView, Query()]) -> Response:
    """Show a study."""
    return _shown(page, session, study_id, view)


@pages.post("/studies/{study_id}/{verb}")
def tell_study(
    study_id: StudyId, verb: str, request: Request, page: PageDep, form: FormDep, allowed: AllowedCodeDep
) -> Response:
    """Do what a form of the study's page asks for; what is refused is said in its dialog."""
    try:
        with page.service.database.unit_of_work() as session:
            where = _tell(session, page, study_id, verb, form, allowed)
    except ServiceError as e:
        if verb not in _WITH_DIALOG:
            raise
        with page.service.database.read() as session:
            view = StudyView.model_validate({"do": verb})
            return _shown(page, session, study_id, view, refused=e, given=form)
    return page.go(where)


def _tell(session: Session, page: Page, study_id: str, verb: str, form: Form, allowed: AllowedCode) -> str:
    actor = page.principal
    if verb == "promote":
        job = verbs.promote(
            session,
            study_id,
            actor=actor,
            number=_whole(form, "trial", 0) or None,
            changes=documents.of_yaml(form.one("changes"), "changes"),
            allowed=allowed,
        )
        return f"/jobs/{job.id}"
    if verb == "extend":
        num_trials, space = _whole(form, "num_trials", 0), documents.of_yaml(form.one("space"), "space")
        verbs.extend(session, study_id, actor=actor, num_trials=num_trials, space=space)
    elif verb == "concurrency":
        verbs.set_concurrency(session, study_id, _whole(form, "concurrency"), actor=actor)
    elif verb in _PLAIN_VERBS:
        _PLAIN_VERBS[verb](session, study_id, actor=actor)
    else:
        allowed_verbs = ", ".join([*_PLAIN_VERBS, *_WITH_FIELDS])
        raise InvalidRequestError(f"nothing is called {verb[:80]!r} here; allowed are {allowed_verbs}", field="verb")
    return f"/studies/{study_id}"


def _shown(
    page: Page,
    session: Session,
    study_id: str,
    view: StudyView,
    *,
    refused: ServiceError | None = None,
    given: Form | None = None,
) -> Response:
    study = reading.read_study(session, study_id)
    return page.render(
        "study.html",
        status_code=200 if refused is None else 422,
        study=study,
        copies=of_study(study.id),
        view=view,
        state=view.changed(),
        tabs=TABS,
        sorts=list(TrialSort),
        states=list(JobState),
        trials=_trials(session, study, view) if view.tab == "trials" else None,
        found=rungs.read_rungs(session, study_id) if view.tab == "rungs" else None,
        document=documents.as_yaml({**documents.short(study.spec), "space": study.space}) if view.tab == "spec" else "",
        is_over=is_terminal(study.state),
        num_done=study.num_by_state.get(JobState.SUCCEEDED, 0),
        num_failed=study.num_by_state.get(JobState.FAILED, 0),
        num_running=study.num_by_state.get(JobState.RUNNING, 0),
        refused=refused,
        given=None if given is None else {name: given.one(name) for name in _FIELDS},
    )


def _trials(session: Session, study: StudyRead, view: StudyView) -> TrialPage:
    best_first = TrialSort.VALUE_DESC if study.spec.objective.mode == "max" else TrialSort.VALUE
    where = TrialFilter(states=view.state, arm=view.arm[0] if view.arm else None, phase=view.phase or None)
    sort = view.sort or best_first
    return reading.read_trials(session, study.id, where=where, sort=sort, cursor=view.cursor, limit=_ROWS)


def _whole(form: Form, name: str, default: int | None = None) -> int:
    text = form.one(name)
    if not text and default is not None:
        return default
    try:
        return int(text)
    except ValueError as e:
        raise InvalidRequestError(f"{name} is {text[:80]!r}; allowed are whole numbers", field=name) from e
