"""The form for a run of the lab: which figure, how large, from how many seeds, with what it would take beside it."""

from functools import cache
from typing import Annotated

from fastapi import Query, Response

from xsam.api.dashboard import schema_forms
from xsam.api.dashboard.pages import Page, PageDep, Pages, ViewQuery
from xsam.api.dashboard.schema_forms import SchemaForm
from xsam.api.dashboard.views import submitting
from xsam.api.dashboard.views.submitting import Draft
from xsam.api.dashboard.visitors import FormDep
from xsam.api.http.dependencies import AllowedCodeDep
from xsam.services.lab import service
from xsam.services.lab.figures.catalog import FIGURES
from xsam.services.lab.spec import FigureName, LabSpec, ScaleName
from xsam.services.settings import AllowedCode
from xsam.services.teams.roles import Role, require_role

pages = Pages()


class NewFigureView(ViewQuery):
    """What the form begins with."""

    figure: FigureName = "3b"
    scale: ScaleName = "digits"
    """The one that takes minutes."""


@cache
def form_of_figure() -> SchemaForm:
    """Return the inputs of a run; a job's own checkpoints are looked at from the job's page."""
    return SchemaForm(LabSpec.model_json_schema(), without=("job",))


@pages.get("/lab/new")
def show_form(page: PageDep, allowed: AllowedCodeDep, view: Annotated[NewFigureView, Query()]) -> Response:
    """Show the form."""
    require_role(page.principal, Role.MEMBER)
    document = {"figure": view.figure, "scale": view.scale}
    return _shown(page, submitting.new_draft(document, LabSpec, is_yaml=False), allowed)


@pages.post("/lab/new")
def take_form(page: PageDep, form: FormDep, allowed: AllowedCodeDep) -> Response:
    """Begin the run that the form holds, or show it again with what it would take."""
    draft = submitting.read_draft(form, LabSpec, form_of_figure().read({name: form.one(name) for name in form.fields}))
    if form.one("action") != "submit":
        return _shown(page, draft, allowed)
    run_id = submitting.submitted(page, draft, service.submit, allowed)
    if run_id is None:
        return _shown(page, draft, allowed, status_code=422)
    return page.go(f"/lab/{run_id}")


def _shown(page: Page, draft: Draft[LabSpec], allowed: AllowedCode, *, status_code: int = 200) -> Response:
    taken = submitting.previewed(page, draft, service.preview, allowed)
    items = form_of_figure().items(draft.document, draft.errors)
    places = {one.path for one in schema_forms.walk(items)} | {"yaml"}
    return page.render(
        "new_figure.html",
        status_code=status_code,
        draft=draft,
        items=items,
        figure=FIGURES.get(str(draft.document.get("figure"))),
        taken=taken,
        unplaced=submitting.unplaced(draft.errors, places if draft.text is None else {"yaml"}),
    )
