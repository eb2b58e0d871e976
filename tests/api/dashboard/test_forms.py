"""The forms for jobs and studies: made of the schemas, read back without loss, refused at the field, sent once."""

import json
from typing import Any

import httpx
import pytest

from tests.api.dashboard.reading import Element, read
from tests.support.many_trials import study_of
from xsam.api.client import Client
from xsam.api.dashboard import documents, schema_forms, space_rows
from xsam.api.dashboard.views.new_job import form_of_job
from xsam.api.dashboard.views.new_study import form_of_study
from xsam.api.examples import STUDY_EXAMPLES, SUBMIT_EXAMPLES
from xsam.services.db.session import Database
from xsam.services.specs.catalog import datasets, models, optimizers
from xsam.services.specs.job import JobSpec
from xsam.services.studies.spec import StudySpec
from xsam.services.teams.roles import Actor

HTML = {"Accept": "text/html", "Sec-Fetch-Site": "same-origin"}
HOSTILE = '"><img src=x onerror=alert(1)>{{7*7}}'


def page_of(http: httpx.Client, path: str) -> Element:
    """Return a page as a browser gets it."""
    answer = http.get(path, headers=HTML)
    assert answer.status_code == 200, answer.text[:500]
    return read(answer.text)


def inputs(page: Element) -> dict[str, str]:
    """Return what the page's form would send if nobody touched it."""
    form = page.one("form", class_="spec-form")
    sent: dict[str, str] = {}
    for one in form.walk():
        name = one.attributes.get("name")
        if not name or (one.attributes.get("type") == "checkbox" and "checked" not in one.attributes):
            continue
        if one.name == "input":
            sent[name] = one.attributes.get("value", "")
        elif one.name == "textarea":
            sent[name] = "".join(child for child in one.children if isinstance(child, str))
        elif one.name == "select":
            chosen = [option for option in one.all("option") if "selected" in option.attributes]
            chosen = chosen or one.all("option")[:1]
            sent[name] = chosen[0].attributes.get("value", chosen[0].text)
    return sent


def named(page: Element, name: str) -> Element:
    """Return the text input of a name."""
    (found,) = [one for one in page.all("input") if one.attributes.get("name") == name]
    return found


def post(http: httpx.Client, path: str, given: dict[str, str], action: str, **headers: str) -> httpx.Response:
    """Send a form with a button."""
    return http.post(path, data={**given, "action": action}, headers={**HTML, **headers})


def filled(items: "tuple[schema_forms.Field | schema_forms.Part, ...]") -> dict[str, str]:
    """Return what inputs send."""
    return {one.path: one.value for one in schema_forms.walk(items)}


@pytest.mark.parametrize("name", SUBMIT_EXAMPLES)
def test_job_form__gives_a_document_back_as_it_was(name: str) -> None:
    spec = JobSpec.model_validate(SUBMIT_EXAMPLES[name]["value"])
    form = form_of_job()
    again = form.read(filled(form.items(documents.short(spec), {})))
    assert JobSpec.model_validate(again) == spec


@pytest.mark.parametrize("name", STUDY_EXAMPLES)
def test_study_form__gives_a_document_back_as_it_was(name: str) -> None:
    spec = StudySpec.model_validate(STUDY_EXAMPLES[name]["value"])
    document = documents.short(spec)
    rows = space_rows.rows(document["space"], spec, {}, num_blank=1)
    given = {f"axis.{row.number}.{field}": value for row in rows for field, value in row.values.items()}
    given |= {
        f"axis.{row.number}.{field}": getattr(row, attr)
        for row in rows
        for field, attr in (("path", "path"), ("type", "kind"))
    }
    read_back = form_of_study().read(filled(form_of_study().items(document, {})))
    again = {**read_back, "base": document.get("base", {}), "space": space_rows.read(given)}
    assert StudySpec.model_validate(again) == spec.model_copy(update={"preset": None})


@pytest.mark.parametrize(
    ("part", "tag", "catalog"),
    [("optimizer", "variant", optimizers), ("model", "name", models), ("dataset", "name", datasets)],
)
def test_job_form__has_every_field_of_every_kind(http: httpx.Client, part: str, tag: str, catalog: Any) -> None:
    for entry in catalog().items:
        document = {part: {tag: entry.name}}
        paths = {one.path for one in schema_forms.walk(form_of_job().items(document, {}))}
        properties = entry.options_schema["properties"].items()
        wanted = {f"{part}.{name}" for name, node in properties if name not in (tag, "base") and "const" not in node}
        assert wanted <= paths
    last = catalog().items[-1].name
    page = read(post(http, "/jobs/new", inputs(page_of(http, "/jobs/new")) | {f"{part}.{tag}": last}, "refresh").text)
    assert inputs(page)[f"{part}.{tag}"] == last


def test_job_form__shows_defaults_bounds_and_help(http: httpx.Client) -> None:
    page = page_of(http, "/jobs/new")
    rho = named(page, "optimizer.rho")
    assert rho.attributes["placeholder"] == "0.05"
    label = page.one("label", for_=rho.attributes["id"])
    assert label.text == "rho above 0, to 100"
    assert "ascent length" in page.one("p", id=rho.attributes["aria-describedby"]).text


def test_job_form__submits_only_what_was_changed_and_once(http: httpx.Client, client: Client) -> None:
    given = inputs(page_of(http, "/jobs/new")) | {"epochs": "7", "optimizer.rho": "1e-1", "name": "by form"}
    first = post(http, "/jobs/new", given, "submit")
    again = post(http, "/jobs/new", given, "submit")
    assert (first.status_code, first.headers["location"]) == (303, again.headers["location"])
    job = client.get(first.headers["location"].removeprefix("/jobs/"))
    assert documents.short(job.spec) == {"name": "by form", "epochs": 7, "optimizer": {"variant": "xsam", "rho": 0.1}}
    assert len(list(client.list())) == 1


def test_job_form__another_kind_drops_the_fields_of_the_old_one(http: httpx.Client, client: Client) -> None:
    given = inputs(page_of(http, "/jobs/new")) | {"optimizer.variant": "sgd", "optimizer.alpha_max": "1.5"}
    location = post(http, "/jobs/new", given, "submit").headers["location"]
    assert client.get(location.removeprefix("/jobs/")).spec.optimizer.variant == "sgd"


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("epochs", "0", "greater than or equal to 1"),
        ("epochs", "many", "valid integer"),
        ("optimizer.base.lr", "-1", "0"),
    ],
)
def test_job_form__says_at_the_field_what_is_refused(http: httpx.Client, field: str, value: str, said: str) -> None:
    answer = post(http, "/jobs/new", inputs(page_of(http, "/jobs/new")) | {field: value}, "submit")
    page = read(answer.text)
    one = named(page, field)
    assert answer.status_code == 422
    assert (one.attributes["value"], one.attributes["aria-invalid"]) == (value, "true")
    assert said in page.one("p", id=one.attributes["aria-describedby"]).text


def test_job_form__refusals_about_the_whole_are_said_on_top(http: httpx.Client) -> None:
    given = inputs(page_of(http, "/jobs/new")) | {"resources.gpus_per_worker": "1.5"}
    page = read(post(http, "/jobs/new", given, "submit").text)
    one = named(page, "resources.gpus_per_worker")
    assert "whole numbers" in page.one("p", id=one.attributes["aria-describedby"]).text


def test_job_form__and_yaml_are_two_views_of_one_document(http: httpx.Client) -> None:
    given = inputs(page_of(http, "/jobs/new")) | {"epochs": "7", "model.name": "mlp", "key": "abc"}
    as_yaml = read(post(http, "/jobs/new", given, "as-yaml").text)
    assert inputs(as_yaml)["yaml"].split() == ["model:", "name:", "mlp", "epochs:", "7"]
    assert inputs(as_yaml)["key"] == "abc"
    changed = inputs(as_yaml) | {"yaml": "epochs: 9\noptimizer: {variant: sam}"}
    back = inputs(read(post(http, "/jobs/new", changed, "as-form").text))
    assert (back["epochs"], back["optimizer.variant"], back["key"]) == ("9", "sam", "abc")


def test_job_form__yaml_that_is_none_is_kept_and_refused(http: httpx.Client) -> None:
    page = page_of(http, "/jobs/new?as=yaml")
    answer = post(http, "/jobs/new", inputs(page) | {"yaml": "epochs: ["}, "submit")
    assert answer.status_code == 422
    assert inputs(read(answer.text))["yaml"] == "epochs: ["
    assert "not YAML" in read(answer.text).one("p", id="yaml-error").text


def test_job_form__preview_answers_alone(http: httpx.Client) -> None:
    given = inputs(page_of(http, "/jobs/new")) | {"epochs": "20"}
    answer = post(http, "/jobs/new", given, "refresh", **{"X-Part": "preview"})
    part = read(answer.text)
    assert answer.headers["x-part"] == "preview"
    assert not part.all("form")
    assert "880" in part.text
    refused = read(post(http, "/jobs/new", given | {"epochs": "0"}, "refresh", **{"X-Part": "preview"}).text)
    assert "epochs" in refused.one("ul", class_="refusals").text


def test_job_form__begins_from_a_job_or_a_document(http: httpx.Client, client: Client) -> None:
    job = client.submit({"epochs": 4, "model": {"name": "mlp", "hidden": [8]}})
    from_job = inputs(page_of(http, f"/jobs/new?from={job.id}"))
    assert (from_job["epochs"], from_job["model.name"], from_job["model.hidden"]) == ("4", "mlp", "[8]")
    spec = httpx.QueryParams({"spec": json.dumps({"epochs": 5})})
    assert inputs(page_of(http, f"/jobs/new?{spec}"))["epochs"] == "5"
    for wrong in ("spec=[1]", "spec=nonsense", "from=nosuchjob000", "bogus=1"):
        assert http.get(f"/jobs/new?{wrong}", headers=HTML).status_code in (404, 422), wrong


def test_forms__keep_text_as_text(http: httpx.Client) -> None:
    given = inputs(page_of(http, "/jobs/new")) | {"name": HOSTILE, "labels": HOSTILE, "optimizer.variant": HOSTILE}
    page = read(post(http, "/jobs/new", given, "submit").text)
    assert not page.all("img")
    assert named(page, "name").attributes["value"] == HOSTILE
    given = inputs(page_of(http, "/studies/new")) | {"axis.0.path": HOSTILE, "axis.0.low": HOSTILE}
    answer = post(http, "/studies/new", given, "submit")
    assert answer.status_code == 422
    assert not read(answer.text).all("img")


def test_forms__refuse_posts_of_other_sites(http: httpx.Client) -> None:
    for path in ("/jobs/new", "/studies/new"):
        answer = http.post(path, data={"action": "submit"}, headers={**HTML, "Sec-Fetch-Site": "cross-site"})
        assert answer.status_code == 403


def test_study_form__begins_with_rho_and_says_where_points_fall(http: httpx.Client) -> None:
    page = page_of(http, "/studies/new")
    sent = inputs(page)
    assert (sent["axis.0.path"], sent["axis.0.low"], sent["axis.0.high"]) == ("optimizer.rho", "0.01", "0.5")
    assert "points fall at 0.01, 0.0266, 0.0707, 0.188, 0.5" in page.one("form", class_="spec-form").text
    assert "12 trials" in page.one("div", id="preview").text


@pytest.mark.parametrize(("preset", "arms"), [("rho", 1), ("rho-k", 1), ("control", 3)])
def test_study_form__a_preset_fills_it_and_it_is_what_the_preset_is(
    http: httpx.Client, client: Client, preset: str, arms: int
) -> None:
    page = read(post(http, "/studies/new", inputs(page_of(http, "/studies/new")), f"preset-{preset}").text)
    assert len(page.one("div", id="preview").one("tbody").all("tr")) == arms
    location = post(http, "/studies/new", inputs(page), "submit").headers["location"]
    made = client.studies.get(location.removeprefix("/studies/")).spec
    assert made == StudySpec.model_validate({"preset": preset}).model_copy(update={"preset": None})


def test_study_form__adds_rows_and_other_kinds(http: httpx.Client, client: Client) -> None:
    page = read(post(http, "/studies/new", inputs(page_of(http, "/studies/new")), "add").text)
    numbers = {name.split(".")[1] for name in inputs(page) if name.startswith("axis.")}
    assert numbers == {"0", "1", "2", "3"}
    given = inputs(page) | {"axis.2.path": "optimizer.ascent_steps", "axis.2.type": "choice"}
    page = read(post(http, "/studies/new", given, "refresh").text)
    given = inputs(page) | {"axis.2.values": "1, 2, 4", "name": "by form"}
    location = post(http, "/studies/new", given, "submit").headers["location"]
    study = client.studies.get(location.removeprefix("/studies/"))
    assert study.space["optimizer.ascent_steps"] == {"type": "choice", "values": [1, 2, 4]}
    assert study.name == "by form"


def test_study_form__says_at_the_row_what_is_refused(http: httpx.Client) -> None:
    given = inputs(page_of(http, "/studies/new")) | {"axis.0.low": "2"}
    answer = post(http, "/studies/new", given, "submit")
    row = read(answer.text).one("div", data_key="axis-0")
    assert answer.status_code == 422
    assert "low must be below high" in row.one("p", class_="error").text


def test_study_form__a_brush_narrows_the_space(http: httpx.Client, database: Database) -> None:
    study_id = study_of(database, 6, actor=Actor("root", "default"))
    query = "range=optimizer.rho:0.05..0.2&range=optimizer.ascent_steps:0..1"
    sent = inputs(page_of(http, f"/studies/new?from={study_id}&{query}"))
    assert (sent["axis.0.low"], sent["axis.0.high"]) == ("0.05", "0.2")
    assert sent["axis.1.values"] == "1, 2"
