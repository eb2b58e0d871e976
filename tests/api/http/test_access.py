"""Who may do what, over a real connection to a service that needs tokens."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from pydantic import SecretStr
from sqlalchemy import text

from tests.api.access_table import BUNDLE, CALLERS, OPEN, OPEN_PAGES, PAGES, TABLE, Access
from tests.api.token_service import Callers, bearer, submit
from tests.support import bundles, studies
from tests.support.callers import (
    ROOT,
    SECRET_KEY,
    begin_session,
    make_member,
    make_secret,
    make_token,
    make_webhook,
    read_token,
)
from tests.support.studies import HandRunner
from xsam.api.client import Client
from xsam.api.http import access
from xsam.api.http.problems import PROBLEM_JSON, STATUSES, Problem
from xsam.services.artifacts.store import JobFolder
from xsam.services.checks import service as checks
from xsam.services.db.session import Database
from xsam.services.lab import service as lab
from xsam.services.lab.spec import LabSpec
from xsam.services.requirements import service as requirements
from xsam.services.settings import (
    AllowedCode,
    ApiSettings,
    CodeSettings,
    NotificationSettings,
    SecretSettings,
    Settings,
)
from xsam.services.specs.job import JobSpec
from xsam.services.teams.roles import Actor, Role


@pytest.fixture
def settings(settings: Settings) -> Settings:
    hosts = NotificationSettings(allowed_hosts=("a.example",))
    update = {"api": ApiSettings(auth="token"), "code": CodeSettings(upload="on"), "notifications": hosts}
    update["secrets"] = SecretSettings(key=SecretStr(SECRET_KEY))
    return settings.model_copy(update=update)


def _problem(response: httpx.Response, code: str) -> Problem:
    assert response.headers["content-type"] == PROBLEM_JSON
    problem = Problem.model_validate_json(response.content)
    assert (problem.code, response.status_code) == (code, int(STATUSES[code]))
    return problem


def _names(database: Database, settings: Settings, job_id: str, access: Access) -> dict[str, str]:
    """Return fresh things of the team red for the placeholders of a path."""

    def token() -> str:
        return make_token(database, "ann", "red")[0]

    def weights() -> str:
        path = JobFolder(settings.artifact_root, job_id).path / "weights" / "best.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"weights")
        return "weights/best.safetensors"

    def member() -> str:
        make_member(database, "dora", "red", Role.MEMBER)
        return "dora"

    make: dict[str, Callable[[], str]] = {
        "check_id": lambda: _check(database),
        "requirements_id": lambda: _requirements(database),
        "bundle_id": lambda: bundles.add(database, settings.artifact_root, BUNDLE, Actor("ann", "red")),
        "job_id": lambda: job_id,
        "name": weights,
        "team": lambda: "red",
        "node": lambda: "node-1",
        "user": member,
        "token_id": token,
        "session_id": lambda: begin_session(database, token())[0],
        "study_id": lambda: _study(database),
        "webhook_id": lambda: make_webhook(database, "red"),
        "secret": lambda: make_secret(database, "red"),
        "run_id": lambda: _lab_run(database),
    }
    return {name: make[name]() for name in access.placeholders}


def _check(database: Database) -> str:
    with database.unit_of_work() as session:
        return checks.submit(session, JobSpec(), actor=Actor("ann", "red")).id


def _requirements(database: Database) -> str:
    with database.unit_of_work() as session:
        allowed = AllowedCode(takes_bundles=True)
        return requirements.submit(session, "einops", actor=Actor("ann", "red"), allowed=allowed).id


def _lab_run(database: Database) -> str:
    with database.unit_of_work() as session:
        return lab.submit(session, LabSpec(figure="1b"), actor=Actor("ann", "red"))[0].id


def _study(database: Database) -> str:
    """Return a running study of ann's over two fields, with one trial that has ended."""
    space = {**studies.SMALL["space"], "optimizer.ascent_steps": {"type": "choice", "values": [1, 3]}}
    runner = HandRunner.start(database, studies.submit(database, actor=Actor("ann", "red"), space=space))
    runner.run({"optimizer.rho": 0.1, "optimizer.ascent_steps": 1}, 0.5)
    return runner.study_id


def test_table__has_every_route(app: FastAPI) -> None:
    served = {
        (method, route.path)
        for route in iter_route_contexts(app.routes)
        for method in (route.methods or {"(any)"}) - {"HEAD"}
    }
    assert served == {(access.method, access.path) for access in TABLE} | {*OPEN, *PAGES, *OPEN_PAGES}


@pytest.mark.parametrize("access", TABLE, ids=lambda access: f"{access.method} {access.path}")
def test_route__lets_in_whom_it_should(
    http: httpx.Client, database: Database, settings: Settings, callers: Callers, access: Access
) -> None:
    job_id = submit(http, callers)

    def call(headers: dict[str, str]) -> httpx.Response:
        path = access.url(_names(database, settings, job_id, access))
        return http.request(access.method, path, json=access.body, content=access.content, headers=headers)

    for headers in [{}, *(bearer(token) for token in callers.invalid.values())]:
        _problem(call(headers), "unauthenticated")
    got = {}
    for caller in CALLERS:
        response = call(callers.headers(caller))
        got[caller] = response.status_code
        if response.is_error:
            not_now = "invalid_transition" if "/jobs/" in access.path or "/runs/" in access.path else "conflict"
            _problem(response, {403: "forbidden", 404: "not_found", 409: not_now}[response.status_code])
    assert got == access.by_caller


@pytest.mark.parametrize(("method", "path"), OPEN)
def test_open_route__asks_nobody(http: httpx.Client, method: str, path: str) -> None:
    assert http.request(method, path).status_code == OPEN[method, path]


_HIDING = [one for one in TABLE if one.by_caller["stranger"] == 404]
"""The others refuse by the role, before anything is looked up."""
_TOLD = {"job_id", "study_id", "run_id", "team", "token_id", "session_id", "check_id", "requirements_id"}
"""What an answer may repeat of the path that was asked for."""


@pytest.mark.parametrize("access", _HIDING, ids=lambda access: f"{access.method} {access.path}")
def test_hidden_thing__is_answered_like_one_that_does_not_exist(
    http: httpx.Client, database: Database, settings: Settings, callers: Callers, access: Access
) -> None:
    names = _names(database, settings, submit(http, callers), access)
    unknown = {**dict.fromkeys(names, "zzzzzzzzzzzz"), "secret": "ZZZZZZZZZZZZ"}

    def answer(values: dict[str, str]) -> str:
        response = http.request(
            access.method, access.url(values), json=access.body, headers=callers.headers("stranger")
        )
        document = str({**response.json(), "request_id": ""}).replace("team red", "team X")  # a body names it in both
        for name in _TOLD & values.keys():
            document = document.replace(values[name], "X")
        return document

    assert answer({**names, "user": "zzzzzzzzzzzz"}) == answer(unknown)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("expired", "expired at"), ("revoked", "revoked at"), ("unknown", "not one of"), ("garbage", "not one of")],
)
def test_invalid_token__is_told_why_and_never_repeated(
    http: httpx.Client, callers: Callers, name: str, reason: str
) -> None:
    response = http.get("/v1/jobs", headers=bearer(callers.invalid[name]))
    assert reason in _problem(response, "unauthenticated").detail
    assert response.headers["www-authenticate"] == 'Bearer realm="xsam", error="invalid_token"'
    assert callers.invalid[name] not in response.text


@pytest.mark.parametrize("header", [{}, {"Authorization": "Basic YW5uOnB3"}, {"Authorization": "Bearer"}])
def test_no_token__is_asked_for_one(http: httpx.Client, header: dict[str, str]) -> None:
    response = http.get("/v1/jobs", headers=header)
    assert "Authorization: Bearer" in _problem(response, "unauthenticated").detail
    assert response.headers["www-authenticate"].startswith('Bearer realm="xsam"')


def test_token_in_the_url__is_refused_like_every_unknown_parameter(http: httpx.Client, callers: Callers) -> None:
    token = callers.valid["member"]
    _problem(http.get("/v1/jobs", params={"token": token}), "unauthenticated")
    response = http.get("/v1/jobs", params={"access_token": token}, headers=callers.headers("member"))
    _problem(response, "validation_failed")
    assert token not in response.text


def test_list__shows_the_teams_jobs_and_to_admins_all(http: httpx.Client, callers: Callers) -> None:
    red, blue = submit(http, callers, "member"), submit(http, callers, "stranger")

    def seen(caller: str, **query: str) -> list[str]:
        response = http.get("/v1/jobs", headers=callers.headers(caller), params=query).raise_for_status()
        return sorted(job["id"] for job in response.json()["items"])

    assert seen("viewer") == seen("member") == seen("lead") == seen("member", team="red") == [red]
    assert seen("stranger") == [blue]
    assert seen("admin") == sorted([red, blue])
    assert seen("admin", team="blue") == [blue]
    response = http.get("/v1/jobs", headers=callers.headers("member"), params={"team": "blue"})
    assert _problem(response, "forbidden").errors[0].field == "team"


def test_job__carries_who_submitted_and_who_cancelled_it(http: httpx.Client, callers: Callers) -> None:
    job_id = submit(http, callers, "member")
    http.post(f"/v1/jobs/{job_id}/cancel", headers=callers.headers("lead")).raise_for_status()
    job = http.get(f"/v1/jobs/{job_id}", headers=callers.headers("viewer")).json()
    events = http.get(f"/v1/jobs/{job_id}/events", headers=callers.headers("viewer")).json()["items"]
    assert (job["submitted_by"], job["team"]) == ("ann", "red")
    assert [(event["kind"], event["actor"]) for event in events] == [("submitted", "ann"), ("cancelled", "lea")]


def test_idempotency_key__of_another_team_is_not_mine(http: httpx.Client, callers: Callers) -> None:
    key = {"Idempotency-Key": "nightly"}
    red = http.post("/v1/jobs", json={}, headers={**callers.headers("member"), **key})
    blue = http.post("/v1/jobs", json={}, headers={**callers.headers("stranger"), **key})
    assert (red.status_code, blue.status_code) == (201, 201)
    assert red.json()["id"] != blue.json()["id"]


def test_stream__of_another_teams_job_is_not_opened(http: httpx.Client, callers: Callers) -> None:
    job_id = submit(http, callers, "member")
    for path in (f"/v1/jobs/{job_id}/events", f"/v1/jobs/{job_id}/logs?follow=true"):
        headers = {**callers.headers("stranger"), "Accept": "text/event-stream"}
        _problem(http.get(path, headers=headers), "not_found")


@pytest.mark.parametrize("path", ["events", "logs?follow=true"])
def test_stream__ends_soon_after_its_token(
    http: httpx.Client, callers: Callers, database: Database, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "RECHECK_S", 0.2)
    job_id = submit(http, callers, "member")
    token_id, token = make_token(database, "ann", "red")
    headers = {**bearer(token), "Accept": "text/event-stream"}
    with http.stream("GET", f"/v1/jobs/{job_id}/{path}", headers=headers, timeout=60) as response:
        assert response.status_code == 200
        http.delete(f"/v1/tokens/{token_id}", headers=callers.headers("lead")).raise_for_status()
        assert "event: end" not in response.read().decode()  # it returns: the job is queued still
    assert http.get(f"/v1/jobs/{job_id}", headers=callers.headers("member")).json()["state"] == "queued"


@pytest.mark.parametrize("job_id", ["..%2f..%2fetc%2fpasswd", "A", "%00", "a" * 33, "x%0a"])
def test_job_id__that_is_none_is_refused_before_any_look(http: httpx.Client, callers: Callers, job_id: str) -> None:
    response = http.get(f"/v1/jobs/{job_id}", headers=callers.headers("member"))
    assert response.status_code in (404, 422)
    assert response.headers["content-type"] == PROBLEM_JSON


def test_role__counts_from_the_next_request_on(http: httpx.Client, database: Database, callers: Callers) -> None:
    job_id = submit(http, callers, "member")
    make_member(database, "ann", "red", Role.VIEWER)
    _problem(http.post(f"/v1/jobs/{job_id}/cancel", headers=callers.headers("member")), "forbidden")
    removed = http.delete("/v1/teams/red/members/ann", headers=callers.headers("lead"))
    assert removed.status_code == 204
    _problem(http.get("/v1/jobs", headers=callers.headers("member")), "unauthenticated")


def test_use__is_noted_once_a_minute(http: httpx.Client, database: Database, callers: Callers) -> None:
    token_id, token = make_token(database, "ann", "red")
    assert read_token(database, token_id).last_used_at is None
    http.get("/v1/jobs", headers=bearer(token)).raise_for_status()
    first = read_token(database, token_id).last_used_at
    assert first is not None
    http.get("/v1/jobs", headers=bearer(token)).raise_for_status()
    assert read_token(database, token_id).last_used_at == first


def test_openapi__says_which_routes_need_a_token(app: FastAPI) -> None:
    document: dict[str, Any] = app.openapi()
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    for path, operations in document["paths"].items():
        for operation in operations.values():
            is_open = path in {one for _, one in OPEN}
            assert ("security" in operation) == (not is_open and (path.startswith("/v1/") or path == "/metrics"))
            if path.startswith("/v1/") and not is_open:
                assert {"401", "403", "429"} <= set(operation["responses"])


def test_client__sends_its_token(url: str, callers: Callers) -> None:
    with Client(url, token=callers.valid["member"]) as client:
        assert client.submit({}).submitted_by == "ann"
        assert (client.whoami().team, client.whoami().role) == ("red", "member")


def test_note_use__that_fails_is_logged_and_refuses_nobody(
    database: Database, callers: Callers, caplog: pytest.LogCaptureFixture
) -> None:
    token_id, _ = make_token(database, "root", "default")
    with database.unit_of_work() as session:
        session.execute(text("ALTER TABLE tokens RENAME TO elsewhere"))
    access.note_use(database, replace(ROOT, token_id=token_id))
    assert f"the use of token {token_id} was not noted" in caplog.text
