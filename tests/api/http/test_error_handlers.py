"""Every code of the table, each from a real request (or, where the API never causes it, from a route that raises)."""

import logging

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict

from tests.support.row_runner import RowRunner
from xsam.api.client import Client
from xsam.api.http.problems import PROBLEM_JSON, STATUSES, Problem
from xsam.services import logs
from xsam.services.db.session import Database
from xsam.services.errors import ConflictError, LeaseLostError, ServiceError, StorageError
from xsam.services.settings import LogSettings, Settings

_FROM_BAD_SUBMITS = {
    "validation_failed",
    "invalid_request",
    "infeasible",
    "conflict",
    "malformed_body",
    "body_too_large",
    "unsupported_media_type",
}
_TESTED_HERE = {
    "service_error",
    "not_found",
    "invalid_transition",
    "lease_lost",
    "storage_error",
    "method_not_allowed",
    "internal_error",
    "database_unavailable",
    "not_ready",
}
_FROM_ACCESS = {"unauthenticated", "forbidden", "rate_limited"}
"""tests/api/test_access.py and test_rate_limit.py."""
_FROM_MIDDLEWARE = {"request_timeout"}
_FROM_DEVICE_FLOW = {"invalid_grant", "authorization_pending", "slow_down", "access_denied", "expired_token"}
"""tests/api/routes/test_device_login.py."""


def _problem(response: httpx.Response, code: str) -> Problem:
    assert response.headers["content-type"] == PROBLEM_JSON
    problem = Problem.model_validate_json(response.content)
    assert (problem.code, response.status_code) == (code, STATUSES[code])
    assert problem.type == f"urn:xsam:problem:{code}"
    return problem


def test_table__has_no_untested_code() -> None:
    assert set(STATUSES) == _FROM_BAD_SUBMITS | _TESTED_HERE | _FROM_ACCESS | _FROM_MIDDLEWARE | _FROM_DEVICE_FLOW


@pytest.mark.parametrize("below", ["", "/metrics", "/alpha", "/events", "/logs"])
def test_not_found__names_the_job(http: httpx.Client, below: str) -> None:
    assert _problem(http.get(f"/v1/jobs/nosuchjob{below}"), "not_found").detail == "no job nosuchjob"


@pytest.mark.parametrize("path", ["/v1/nothing", "/nothing"])
def test_not_found__names_the_path(http: httpx.Client, path: str) -> None:
    assert _problem(http.get(path), "not_found").detail == f"Nothing is served at {path}."


def test_method_not_allowed__says_which_are(http: httpx.Client) -> None:
    response = http.put("/v1/jobs")
    _problem(response, "method_not_allowed")
    assert response.headers["allow"] == "GET, POST"


def test_invalid_transition__cancelling_what_has_succeeded(
    client: Client, http: httpx.Client, runner: RowRunner
) -> None:
    job = client.submit({})
    runner.run(job.id)
    assert "succeeded" in _problem(http.post(f"/v1/jobs/{job.id}/cancel"), "invalid_transition").detail


@pytest.mark.parametrize("error", [ServiceError, LeaseLostError, StorageError, ConflictError])
def test_service_error__answers_with_its_code_and_sentence(
    app: FastAPI, http: httpx.Client, error: type[ServiceError]
) -> None:
    @app.get("/raises")
    def raises() -> None:
        raise error("shelf 7 is empty", field="shelf")

    problem = _problem(http.get("/raises"), error.code)
    assert problem.detail == "shelf 7 is empty"
    assert [one.field for one in problem.errors] == ["shelf"]


def test_internal_error__tells_the_log_but_not_the_caller(
    app: FastAPI, http: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    @app.get("/raises")
    def raises() -> None:
        raise RuntimeError("password=hunter2")

    caplog.handler.setFormatter(logs.formatter(LogSettings(format="json")))
    response = http.get("/raises", headers={"X-Request-ID": "find-me"})

    assert _problem(response, "internal_error").request_id == "find-me"
    assert "hunter2" not in response.text
    assert '"request_id": "find-me"' in next(line for line in caplog.text.splitlines() if "request failed" in line)
    (record,) = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert "hunter2" in str(record.exc_info)


def test_database_unavailable__when_the_file_is_gone(
    http: httpx.Client, database: Database, settings: Settings
) -> None:
    database.engine.dispose()
    (settings.data_dir / "xsam.db").unlink()
    for leftover in settings.data_dir.glob("xsam.db-*"):
        leftover.unlink()
    settings.data_dir.rmdir()

    response = http.get("/v1/jobs")

    _problem(response, "database_unavailable")
    assert "sqlite" not in response.text.lower()


def test_not_ready__without_a_dispatcher(http: httpx.Client) -> None:
    assert "dispatcher" in _problem(http.get("/readyz"), "not_ready").detail


def test_validation__of_any_body_names_its_fields(app: FastAPI, http: httpx.Client) -> None:
    class Shelf(BaseModel):
        model_config = ConfigDict(extra="forbid")
        height_cm: int

    class Room(BaseModel):
        shelf: Shelf

    @app.post("/rooms")
    def add_room(room: Room) -> None: ...

    problem = _problem(http.post("/rooms", json={"shelf": {"height_cm": "tall", "width": 1}}), "validation_failed")
    assert [(error.field, error.allowed) for error in problem.errors] == [
        ("shelf.height_cm", None),
        ("shelf.width", ["height_cm"]),
    ]


def test_many_wrong_fields__are_counted_and_few_are_listed(http: httpx.Client) -> None:
    answer = http.post("/v1/jobs", json={f"f{number}": 1 for number in range(10_000)})
    problem = Problem.model_validate_json(answer.content)
    assert (problem.code, len(problem.errors)) == ("validation_failed", 20)
    assert problem.detail.endswith("(and 9999 more)")
    assert len(answer.content) < 30_000
