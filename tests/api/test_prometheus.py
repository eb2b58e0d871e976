"""The shipped configuration, alert rules and dashboard, by a real Prometheus that scrapes a real server."""

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from fastapi import FastAPI
from sqlalchemy import update

from tests.api.token_service import bearer
from tests.support import jobs, planning, programs
from tests.support.callers import admin_token
from tests.support.ports import free_port
from xsam.api.server.server import Server, bind, url_of
from xsam.services.cluster import leader
from xsam.services.cluster import service as cluster
from xsam.services.cluster.counters import DispatcherCounters
from xsam.services.cluster.models import ClusterNode, Dispatcher
from xsam.services.cluster.service import ForeignHolding, NodeSeen
from xsam.services.db.clock import db_now
from xsam.services.db.session import Database
from xsam.services.jobs import idle, queue
from xsam.services.jobs.models import Job
from xsam.services.jobs.states import FailureKind
from xsam.services.settings import ApiSettings, Settings

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "xsam.rules.yml"
DASHBOARD = json.loads((DEPLOY / "grafana" / "xsam.json").read_text())
QUERIES = [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel["targets"]]
NODE = NodeSeen("n1", "node-1", 4, 4, foreign=(ForeignHolding("somebody's actor", num_gpus=1, num_cpus=1),))
PATIENCE_S = 60.0


def test_rules__are_valid_and_fire_when_they_should() -> None:
    promtool = programs.find("promtool", package="prometheus")
    for verb, file in (("check", "xsam.rules.yml"), ("test", "xsam.rules.test.yml")):
        done = subprocess.run(
            [promtool, verb, "rules", file], cwd=RULES.parent, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_rules__are_each_tested() -> None:
    rules = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
    tested = yaml.safe_load((RULES.parent / "xsam.rules.test.yml").read_text())["tests"]
    fired = {rule["alertname"] for test in tested for rule in test["alert_rule_test"] if rule["exp_alerts"]}
    assert fired == {rule["alert"] for rule in rules}


def test_dashboard__has_panels_with_names_and_places_of_their_own() -> None:
    panels = DASHBOARD["panels"]
    for key in ("id", "title"):
        assert len({panel[key] for panel in panels}) == len(panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", api=ApiSettings(auth="token"))


@pytest.fixture
def lively(database: Database) -> None:
    """A cluster with a leader, a node, a running job, waiting ones, ended attempts."""
    counters = DispatcherCounters(num_placements=3, num_preemptions=1, num_leases_lost=1)
    for histogram in (counters.turns, counters.decisions, counters.statements):
        histogram.observe(0.02)
    with database.unit_of_work() as session:
        leader.acquire(session, leader.DISPATCH, planning.DISPATCHER, lease_s=3600)
        cluster.report_alive(session, planning.DISPATCHER, nodes=[NODE], num_warm_runners=1, counters=counters)
    lease = jobs.submit_and_claim(database, retry={"infrastructure": 0})
    with database.unit_of_work() as session:
        queue.fail(session, lease, kind=FailureKind.INFRASTRUCTURE, message="the node is gone")
    unused = jobs.submit_and_claim(database, resources={"gpus_per_worker": 1})
    with database.unit_of_work() as session:
        idle.note_use(session, unused, utilization=0.0, busiest=0.0, used_bytes=2**30, total_bytes=2**33)
        session.execute(update(Job).where(Job.id == unused.job_id).values(idle_warned_at=db_now()))
    for _ in range(2):
        jobs.submit(database, resources={"gpus_per_worker": 3})
    planning.decide(database, [NODE])
    with database.unit_of_work() as session:  # they stay alive however long a busy machine takes to scrape
        for rows in (Dispatcher, ClusterNode):
            session.execute(update(rows).values(seen_at=db_now(2 * PATIENCE_S)))


@pytest.fixture
def prometheus(app: FastAPI, database: Database, lively: None, tmp_path: Path) -> Iterator[httpx.Client]:
    """A Prometheus that has scraped the service a few times, with the shipped configuration."""
    program = programs.find("prometheus", package="prometheus")
    token = admin_token(database)
    (tmp_path / "token").write_text(token)
    (tmp_path / RULES.name).write_text(RULES.read_text())
    with bind("127.0.0.1", 0) as listener:
        server = Server(app, on_ready=lambda: None)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        with httpx.Client(base_url=url_of(listener), headers=bearer(token)) as http:
            job_id = http.post("/v1/jobs", json={}).json()["id"]
            http.get(f"/v1/jobs/{job_id}/artifacts")
            http.get("/readyz")
        config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s", "scrape_timeout": "1s"}
        config["scrape_configs"][0]["static_configs"] = [{"targets": [url_of(listener).removeprefix("http://")]}]
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
        address = f"127.0.0.1:{free_port()}"
        options = ["--config.file=prometheus.yml", "--storage.tsdb.path=tsdb", f"--web.listen-address={address}"]
        with (tmp_path / "prometheus.log").open("wb") as log:
            process = subprocess.Popen([program, *options], cwd=tmp_path, stdout=log, stderr=log)
        try:
            with httpx.Client(base_url=f"http://{address}", timeout=60) as http:
                _wait_for_scrapes(http)
                yield http
        finally:
            process.terminate()
            process.wait(60)
            server.should_exit = True
            thread.join(60)


def _wait_for_scrapes(http: httpx.Client) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            if any(float(one["value"][1]) >= 3 for one in _query(http, "count_over_time(xsam_database_up[5m])")):
                return
        except httpx.TransportError:
            pass
        time.sleep(0.3)
    raise TimeoutError(f"Prometheus did not scrape the service within {PATIENCE_S:g} s")


def _query(http: httpx.Client, expression: str) -> list[Any]:
    response = http.get("/api/v1/query", params={"query": expression})
    if response.status_code == 503:  # it is starting
        return []
    assert response.status_code == 200, f"{expression}: {response.text}"
    found: list[Any] = response.json()["data"]["result"]
    return found


def test_dashboard_and_rules__have_answers_from_a_real_service(prometheus: httpx.Client) -> None:
    silent = [title for title, query in QUERIES if not _query(prometheus, query) and title != "Requests that failed"]
    assert silent == []
    deadline = time.monotonic() + PATIENCE_S
    while True:
        rules = prometheus.get("/api/v1/rules").json()["data"]["groups"][0]["rules"]
        if all(rule["health"] != "unknown" for rule in rules) or time.monotonic() > deadline:
            break
        time.sleep(0.3)
    assert {rule["name"]: rule.get("lastError") for rule in rules if rule["health"] != "ok"} == {}
    assert {"XsamForeignGpus", "XsamGpusHeldIdle", "XsamGpusBarelyUsed"} <= {
        rule["name"] for rule in rules if rule["state"] == "pending"
    }
