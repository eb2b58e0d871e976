"""The form for a study: presets, searched fields as rows, and what each arm would cost beside it."""

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal

from fastapi import Query, Response
from pydantic import Field as Bounded

from xsam.api.dashboard import documents, schema_forms, space_rows
from xsam.api.dashboard.pages import Page, PageDep, Pages, ViewQuery
from xsam.api.dashboard.schema_forms import SchemaForm
from xsam.api.dashboard.views import submitting
from xsam.api.dashboard.views.submitting import Draft
from xsam.api.dashboard.visitors import Form, FormDep
from xsam.api.http.dependencies import AllowedCodeDep
from xsam.services.errors import NotFoundError
from xsam.services.settings import AllowedCode
from xsam.services.specs.job import JobSpec
from xsam.services.studies import reading, service
from xsam.services.studies.presets import PRESETS, with_preset
from xsam.services.studies.spec import StudySpec
from xsam.services.teams.roles import Role, require_role

pages = Pages()

FIRST = ("name", "sampler", "num_trials", "seeds_per_config", "control", "concurrency", "early_stopping")
_BASE_FIRST = ("optimizer", "model", "dataset", "epochs", "batch_size")
_NOT_OF_BASE = ("name", "labels", "priority", "seed")
"""A study says these itself, or for all of its trials."""


class NewStudyView(ViewQuery):
    """What the form begins with."""

    from_: Annotated[str | None, Bounded(alias="from", pattern=r"^[a-z0-9]{1,32}$")] = None
    """A study to start from."""
    range: Annotated[list[Annotated[str, Bounded(max_length=200)]], Bounded(max_length=20, default_factory=list)]
    """`field:low..high`: narrower ends, as a brush has drawn them."""
    preset: Literal["rho", "rho-k", "control"] | None = None
    spec: Annotated[str | None, Bounded(max_length=20_000)] = None
    """A specification as JSON."""
    as_: Annotated[Literal["form", "yaml"], Bounded(alias="as")] = "form"


@cache
def form_of_study() -> SchemaForm:
    """Return the inputs of a study but for its space and its base job."""
    return SchemaForm(StudySpec.model_json_schema(), without=("base", "space", "preset"))


@cache
def form_of_base() -> SchemaForm:
    """Return the inputs of a study's base job."""
    return SchemaForm(JobSpec.model_json_schema(), prefix="base.", without=_NOT_OF_BASE)


@pages.get("/studies/new")
def show_form(page: PageDep, allowed: AllowedCodeDep, view: Annotated[NewStudyView, Query()]) -> Response:
    """Show the form: a preset's, another study's, or the one for rho."""
    require_role(page.principal, Role.MEMBER)
    document = submitting.given_document(view.spec)
    if view.from_ is not None:
        document = _document_of(page, view.from_, view.range)
    elif not document:
        document = with_preset({"preset": view.preset or "rho"})
    return _shown(page, submitting.new_draft(document, StudySpec, is_yaml=view.as_ == "yaml"), allowed)


@pages.post("/studies/new")
def take_form(page: PageDep, form: FormDep, allowed: AllowedCodeDep) -> Response:
    """Queue what the form holds, or show it again: another view, a preset, one more row, what it would take."""
    action = form.one("action")
    draft = submitting.read_draft(form, StudySpec, _document(form))
    if action.startswith("preset-") and action.removeprefix("preset-") in PRESETS:
        draft = _preset(draft, action.removeprefix("preset-"))
    if action != "submit":
        return _shown(page, draft, allowed, num_blank=2 if action == "add" else 1)
    job_id = submitting.submitted(page, draft, service.submit, allowed)
    if job_id is None:
        return _shown(page, draft, allowed, status_code=422)
    return page.go(f"/studies/{job_id}")


def _document(form: Form) -> dict[str, Any]:
    given = {name: form.one(name) for name in form.fields}
    base = form_of_base().read(given)
    space = space_rows.read(given)
    parts = {"base": base, "space": space}
    return {**form_of_study().read(given), **{name: part for name, part in parts.items() if part}}


def _preset(draft: Draft[StudySpec], name: str) -> Draft[StudySpec]:
    """Return the draft with what a preset says instead of what it said of the same."""
    kept = {field: value for field, value in draft.document.items() if all(field not in p for p in PRESETS.values())}
    filled = with_preset({**kept, "preset": name})
    del filled["preset"]
    found = submitting.checked(filled, StudySpec)
    found.key = draft.key
    found.text = None if draft.text is None else documents.as_yaml(filled)
    return found


def _document_of(page: Page, study_id: str, ranges: list[str]) -> dict[str, Any]:
    with page.service.database.read() as session:
        study = reading.read_study(session, study_id)
    if not page.principal.sees(study.team):
        raise NotFoundError(f"no study {study_id}", field="from")
    document = documents.short(study.spec)
    document.pop("preset", None)
    space = {path: _narrowed(dimension, path, ranges) for path, dimension in study.space.items()}
    return {**document, "space": space}


def _narrowed(dimension: Mapping[str, Any], path: str, ranges: list[str]) -> dict[str, Any]:
    given = next((one.removeprefix(f"{path}:") for one in ranges if one.startswith(f"{path}:")), None)
    ends = [] if given is None else given.split("..")
    try:
        low, high = (float(end) for end in ends)
    except ValueError:
        return dict(dimension)
    if dimension["type"] == "choice":
        return {**dimension, "values": dimension["values"][max(int(low), 0) : int(high) + 1] or dimension["values"]}
    if "low" not in dimension:
        return dict(dimension)
    cast = int if dimension["type"] == "int" else float
    low, high = max(low, dimension["low"]), min(high, dimension["high"])
    return {**dimension, "low": cast(f"{low:.4g}"), "high": cast(f"{high:.4g}")} if low < high else dict(dimension)


def _shown(
    page: Page, draft: Draft[StudySpec], allowed: AllowedCode, *, status_code: int = 200, num_blank: int = 1
) -> Response:
    taken = submitting.previewed(page, draft, service.preview, allowed)
    items = form_of_study().items(draft.document, draft.errors)
    base = form_of_base().items(draft.document.get("base", {}), draft.errors)
    space = draft.document.get("space", {})
    rows = space_rows.rows(space if isinstance(space, Mapping) else {}, draft.spec, draft.errors, num_blank=num_blank)
    places = {one.path for one in schema_forms.walk((*items, *base))} | {"yaml"}
    shown_rows = {name for name in draft.errors for row in rows if row.path and name.startswith(f"space.{row.path}")}
    return page.render(
        "new_study.html",
        status_code=status_code,
        draft=draft,
        first=[one for name in FIRST for one in items if one.path == name],
        more=[one for one in items if one.path not in FIRST],
        base_first=[one for name in _BASE_FIRST for one in base if one.path == f"base.{name}"],
        base_more=[one for one in base if one.path.removeprefix("base.") not in _BASE_FIRST],
        rows=rows,
        kinds=space_rows.FIELDS,
        suggested=space_rows.SUGGESTED,
        presets=list(PRESETS),
        taken=taken,
        unplaced=submitting.unplaced(draft.errors, places | shown_rows if draft.text is None else {"yaml"}),
    )
