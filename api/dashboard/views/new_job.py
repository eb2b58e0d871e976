"""The form for a job: made of its JSON Schema, with what it would take beside it; also without a script."""

from functools import cache
from typing import Annotated, Any, Literal

from fastapi import Query, Response
from pydantic import Field as Bounded

from xsam.api.dashboard import documents, schema_forms
from xsam.api.dashboard.pages import Page, PageDep, Pages, ViewQuery
from xsam.api.dashboard.schema_forms import SchemaForm
from xsam.api.dashboard.views import submitting
from xsam.api.dashboard.views.submitting import Draft
from xsam.api.dashboard.visitors import FormDep
from xsam.api.http.dependencies import AllowedCodeDep
from xsam.services.errors import NotFoundError
from xsam.services.jobs import service as jobs
from xsam.services.reports import job_preview
from xsam.services.settings import AllowedCode
from xsam.services.specs.job import JobSpec
from xsam.services.teams.roles import Role, require_role

pages = Pages()

FIRST = ("name", "optimizer", "model", "dataset", "epochs", "batch_size", "schedule", "resources")
"""What most people set; the rest is folded away."""


class NewJobView(ViewQuery):
    """What the form begins with."""

    from_: Annotated[str | None, Bounded(alias="from", pattern=r"^[a-z0-9]{1,32}$")] = None
    """A job to start from."""
    spec: Annotated[str | None, Bounded(max_length=20_000)] = None
    """A specification as JSON."""
    as_: Annotated[Literal["form", "yaml"], Bounded(alias="as")] = "form"


@cache
def form_of_job() -> SchemaForm:
    """Return the inputs of a job."""
    return SchemaForm(JobSpec.model_json_schema())


@pages.get("/jobs/new")
def show_form(page: PageDep, allowed: AllowedCodeDep, view: Annotated[NewJobView, Query()]) -> Response:
    """Show the form, empty or begun from another job."""
    require_role(page.principal, Role.MEMBER)
    document = submitting.given_document(view.spec)
    if view.from_ is not None:
        document = _document_of(page, view.from_)
    draft = submitting.new_draft(document, JobSpec, is_yaml=view.as_ == "yaml")
    return _shown(page, draft, allowed)


@pages.post("/jobs/new")
def take_form(page: PageDep, form: FormDep, allowed: AllowedCodeDep) -> Response:
    """Queue what the form holds, or show it again: in the other view, with other fields, with what it would take."""
    draft = submitting.read_draft(form, JobSpec, form_of_job().read({name: form.one(name) for name in form.fields}))
    if form.one("action") != "submit":
        return _shown(page, draft, allowed)
    job_id = submitting.submitted(page, draft, jobs.submit, allowed)
    if job_id is None:
        return _shown(page, draft, allowed, status_code=422)
    return page.go(f"/jobs/{job_id}")


def _document_of(page: Page, job_id: str) -> dict[str, Any]:
    with page.service.database.read() as session:
        job = jobs.get(session, job_id)
        if not page.principal.sees(job.team):
            raise NotFoundError(f"no job {job_id}", field="from")
        return documents.short(JobSpec.model_validate(job.spec))


def _shown(page: Page, draft: Draft[JobSpec], allowed: AllowedCode, *, status_code: int = 200) -> Response:
    taken = submitting.previewed(page, draft, job_preview.preview, allowed)
    items = form_of_job().items(draft.document, draft.errors)
    places = {one.path for one in schema_forms.walk(items)} | {"yaml"}
    return page.render(
        "new_job.html",
        status_code=status_code,
        draft=draft,
        first=[one for name in FIRST for one in items if one.path == name],
        more=[one for one in items if one.path not in FIRST],
        taken=taken,
        unplaced=submitting.unplaced(draft.errors, places if draft.text is None else {"yaml"}),
    )
