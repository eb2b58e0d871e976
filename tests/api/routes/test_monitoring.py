"""`/metrics` as Prometheus reads it, over a real connection."""

import httpx
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text
from starlette.testclient import TestClient

from tests.api.token_service import make_callers
from tests.support import planning
from xsam.api.app import create_app
from xsam.api.client import Client
from xsam.services.cluster.service import NodeSeen
from xsam.services.db.session import Database
from xsam.services.settings import ApiSettings, Settings

NODE = NodeSeen("n1", "node-1", num_cpus=4, num_gpus=2)
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def _scrape(http: httpx.Client) -> Samples:
    response = http.get("/metrics")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in text_string_to_metric_families(response.text)
        for one in family.samples
    }


def _value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, tuple(sorted(labels.items()))))


def test_metrics__tell_rows_and_what_the_process_counted(
    http: httpx.Client, client: Client, database: Database
) -> None:
    nodes = planning.report_nodes(database, NODE)
    for _ in range(2):
        client.submit({"resources": {"gpus_per_worker": 2}})
    planning.decide(database, nodes)
    team = next(client.list()).team
    http.get("/v1/jobs/nosuchjob")
    found = _scrape(http)
    assert _value(found, "xsam_jobs", team=team, state="queued") == 1
    assert _value(found, "xsam_gpus_held", team=team) == 2
    assert _value(found, "xsam_queue_jobs_waiting", team=team, reason="insufficient_resources") == 1
    assert _value(found, "xsam_node_gpus", host="node-1", node="n1") == 2
    assert _value(found, "xsam_database_up") == 1
    assert _value(found, "xsam_http_requests_total", method="POST", route="/v1/jobs", status="201") == 2
    assert _value(found, "xsam_http_requests_total", method="GET", route="/v1/jobs/{job_id}", status="404") == 1
    assert _value(found, "xsam_http_request_seconds_count", method="POST", route="/v1/jobs") == 2
    assert (_value(found, "xsam_api_statement_seconds_count") or 0) > 10
    assert (_value(found, "process_resident_memory_bytes") or 0) > 1e6


def test_labels__are_not_made_of_what_callers_send(http: httpx.Client) -> None:
    for number in range(3):
        http.get(f"/nothing/{number}")
        http.request("PROPFIND", "/healthz")
        http.get("/healthz")
    names = [dict(labels) for name, labels in _scrape(http) if name == "xsam_http_requests_total"]
    assert {one["route"] for one in names} == {"none", "/healthz"}
    assert {one["method"] for one in names} == {"GET", "other"}


def test_streams__are_counted_while_they_are_open(http: httpx.Client, client: Client) -> None:
    job = client.submit({})
    accept = {"Accept": "text/event-stream"}
    assert _value(_scrape(http), "xsam_open_streams") == 0
    with http.stream("GET", f"/v1/jobs/{job.id}/events", headers=accept) as stream:
        lines = stream.iter_lines()  # a generator that is let go of closes the stream
        next(lines)
        assert _value(_scrape(http), "xsam_open_streams") == 1


def test_metrics__of_two_processes_agree_on_rows_and_count_apart(
    http: httpx.Client, client: Client, settings: Settings, database: Database
) -> None:
    client.submit({})
    with TestClient(create_app(settings, database), base_url="http://127.0.0.1") as other:
        here, there = _scrape(http), _scrape(other)
    assert _value(here, "xsam_jobs", team="default", state="queued") == 1
    assert _value(there, "xsam_jobs", team="default", state="queued") == 1
    asked = {"method": "POST", "route": "/v1/jobs", "status": "201"}
    assert _value(here, "xsam_http_requests_total", **asked) == 1
    assert _value(there, "xsam_http_requests_total", **asked) is None


def test_metrics__without_a_database_still_tell_that(http: httpx.Client, database: Database) -> None:
    with database.engine.begin() as connection:
        connection.execute(text("ALTER TABLE jobs RENAME TO gone"))
    found = _scrape(http)
    assert _value(found, "xsam_database_up") == 0
    assert (_value(found, "xsam_http_requests_total", method="GET", route="/metrics", status="200") or 0) == 0
    assert _value(found, "xsam_jobs", team="red", state="queued") is None


def test_metrics__need_a_token_where_all_else_does(settings: Settings, database: Database) -> None:
    strict = settings.model_copy(update={"api": ApiSettings(auth="token")})
    callers = make_callers(database)
    with TestClient(create_app(strict, database)) as http:
        assert http.get("/metrics").status_code == 401
        assert http.get("/metrics", headers=callers.headers("viewer")).status_code == 200
