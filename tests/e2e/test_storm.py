"""Twenty jobs run while one process after the other is killed: nothing is lost, nothing is done twice."""

import contextlib
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.postgres_server import PostgresServer, find_programs, postgres_server
from tests.support.processes import descendants
from tests.support.served import Served, served

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.e2e,
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.db,
]

NUM_JOBS = 20
EPOCHS = 12
PATIENCE_S = 420.0
SEED = 20


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server that the test may stop."""
    programs = find_programs()
    if programs is None:
        if "postgres" in os.environ.get("XSAM_TEST_REQUIRE", ""):
            pytest.fail("PostgreSQL's programs (initdb, pg_ctl) are required but not installed")
        pytest.skip("PostgreSQL's programs (initdb, pg_ctl) are not installed on this machine")
    with tempfile.TemporaryDirectory() as folder, postgres_server(programs, Path(folder) / "data") as server:
        yield server


def test_storm__every_job_succeeds_with_each_epoch_once_and_the_cluster_is_free(
    own_postgres: PostgresServer, tmp_path: Path
) -> None:
    rng = random.Random(SEED)
    options = {"database_url": own_postgres.url}
    with served(tmp_path / "data", "--num-cpus", "2", **options) as service:
        job_ids = [_submit(service, number) for number in range(NUM_JOBS)]
        for victim in ("rank_pid", "runner_pid", "postgres", "rank_pid", "raylet", "runner_pid"):
            time.sleep(rng.uniform(1.0, 6.0))
            _strike(victim, service, own_postgres, rng)
        time.sleep(rng.uniform(5.0, 10.0))
        _strike("-m xsam.workers", service, own_postgres, rng)
        time.sleep(rng.uniform(5.0, 10.0))
        service.process.kill()  # the API; the dispatcher follows its parent
    with served(tmp_path / "data", "--num-cpus", "2", is_warmed=False, **options) as service:
        jobs = [_wait_end(service, job_id) for job_id in job_ids]
        # A job that needs the whole cluster runs at once: nothing is left reserved.
        last = _wait_end(service, _submit(service, 0, resources={"num_workers": 2}))
        epochs = {job_id: _epochs(service, job_id) for job_id in job_ids}
    assert Counter(job["state"] for job in [*jobs, last]) == {"succeeded": NUM_JOBS + 1}
    assert all(found == list(range(1, EPOCHS + 1)) for found in epochs.values())
    assert sum(job["attempt"] for job in jobs) > NUM_JOBS, "no attempt was interrupted: the storm missed"


def _submit(service: Served, number: int, **changes: Any) -> str:
    spec = {
        "epochs": EPOCHS,
        "seed": number,
        "optimizer": {"variant": "xsam" if number % 2 else "sam"},
        "resources": {"num_workers": 2 if number % 5 == 4 else 1},
        "retry": {"infrastructure": 50},
        **changes,
    }
    return str(httpx.post(service.url + "/v1/jobs", json=spec).raise_for_status().json()["id"])


def _strike(victim: str, service: Served, postgres: PostgresServer, rng: random.Random) -> None:
    """Kill a process of this kind, if one lives at the moment."""
    if victim == "postgres":
        postgres.stop()
        time.sleep(rng.uniform(0.5, 3.0))
        postgres.start()
        return
    if victim in ("runner_pid", "rank_pid"):
        found = _pids_at_work(service, victim)
    else:
        found = [pid for pid, title in descendants(service.process.pid).items() if victim in title]
    if found:
        with contextlib.suppress(ProcessLookupError):  # it was faster
            os.kill(rng.choice(sorted(found)), signal.SIGKILL)


def _pids_at_work(service: Served, name: str) -> list[int]:
    """Return the processes of this kind that have a running job."""
    pids = []
    for job in _get(service, "/v1/jobs?state=running")["items"]:
        events = _get(service, f"/v1/jobs/{job['id']}/events")["items"]
        pids += [event["data"][name] for event in events if event["kind"] == "training"][-1:]
    return pids


def _wait_end(service: Served, job_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE_S
    while (job := _get(service, f"/v1/jobs/{job_id}"))["state"] in ("queued", "running"):
        assert time.monotonic() < deadline, f"job {job_id} is still {job['state']}"
        time.sleep(0.5)
    return job


def _epochs(service: Served, job_id: str) -> list[int]:
    return [row["epoch"] for row in _get(service, f"/v1/jobs/{job_id}/metrics")["items"]]


def _get(service: Served, path: str) -> dict[str, Any]:
    return dict(httpx.get(service.url + path, timeout=30).raise_for_status().json())
