"""The OpenAPI document: good enough to generate a client from."""

from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from xsam.api.http.problems import PROBLEM_JSON
from xsam.services.specs.job import JobSpec


@pytest.fixture
def document(app: FastAPI) -> dict[str, Any]:
    return app.openapi()


def _operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, verb, one) for path, verbs in document["paths"].items() for verb, one in verbs.items()]


def test_operations__have_ids_tags_and_words(document: dict[str, Any]) -> None:
    operations = _operations(document)
    ids = [one["operationId"] for _, _, one in operations]
    assert {"submitJob", "listJobs", "getJob", "cancelJob", "listEvents", "readLogs", "getReadiness"} <= set(ids)
    assert len(ids) == len(set(ids))
    declared = {tag["name"] for tag in document["tags"]}
    for path, verb, one in operations:
        assert one["summary"], (path, verb)
        assert one["description"], (path, verb)
        assert set(one["tags"]) <= declared, (path, verb)


def test_errors__are_documented_as_problems(document: dict[str, Any]) -> None:
    for path, verb, one in _operations(document):
        errors = {status: answer for status, answer in one["responses"].items() if int(status) >= 400}
        assert {"422", "500"} <= set(errors), (path, verb)
        for status, answer in errors.items():
            expected = {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}}
            assert answer["content"] == expected, (path, verb, status)
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_answers__have_schemas(document: dict[str, Any]) -> None:
    for path, verb, one in _operations(document):
        for status, answer in one["responses"].items():
            if status in {"204", "304"}:
                continue
            for media in answer["content"].values():
                assert media["schema"], (path, verb, status)


def test_references__all_lead_somewhere(document: dict[str, Any]) -> None:
    def references(part: Any) -> list[str]:
        if isinstance(part, dict):
            own = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
            return own + [one for value in part.values() for one in references(value)]
        return [one for value in part for one in references(value)] if isinstance(part, list) else []

    for reference in references(document):
        target: Any = document
        for name in reference.removeprefix("#/").split("/"):
            target = target[name]


def test_examples__of_a_submit_are_valid(document: dict[str, Any]) -> None:
    examples = document["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]["examples"]
    assert len(examples) >= 3
    for example in examples.values():
        JobSpec.model_validate(example["value"])


def test_pages_that_load_code_from_a_cdn__are_off(http: httpx.Client) -> None:
    assert http.get("/docs").status_code == 404
    assert http.get("/redoc").status_code == 404
    assert http.get("/openapi.json").json()["info"]["title"] == "XSAM training service"
