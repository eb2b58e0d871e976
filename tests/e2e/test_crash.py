"""The whole service in processes of its own, and what is left of a job when one of them is killed."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.processes import children
from tests.support.served import Served, served

pytestmark = [pytest.mark.e2e, pytest.mark.ray, pytest.mark.slow]

PATIENCE_S = 240.0


def _submit(service: Served, **spec: Any) -> str:
    return str(httpx.post(service.url + "/v1/jobs", json=spec).raise_for_status().json()["id"])


def _job(service: Served, job_id: str) -> dict[str, Any]:
    return dict(httpx.get(f"{service.url}/v1/jobs/{job_id}").raise_for_status().json())


def _wait_epoch(service: Served, job_id: str, epoch: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while _job(service, job_id)["progress"]["epochs_done"] < epoch:
        assert time.monotonic() < deadline, f"no epoch {epoch}"
        time.sleep(0.1)


def _wait_end(service: Served, job_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE_S
    while (job := _job(service, job_id))["state"] in ("queued", "running"):
        assert time.monotonic() < deadline, f"still {job['state']}"
        time.sleep(0.2)
    return job


def test_dispatcher_killed_in_mid_job__job_succeeds_and_each_epoch_is_there_once(tmp_path: Path) -> None:
    spec = {"epochs": 30, "optimizer": {"variant": "xsam"}, "resources": {"num_workers": 2}}
    with served(tmp_path / "data", "--num-cpus", "2") as service:
        job_id = _submit(service, **spec)
        _wait_epoch(service, job_id, 3)
        (dispatcher,) = children(service.process.pid)
        os.kill(dispatcher, signal.SIGKILL)
        job = _wait_end(service, job_id)
        rows = httpx.get(f"{service.url}/v1/jobs/{job_id}/metrics").json()["items"]
    assert job["state"] == "succeeded"
    assert job["attempt"] == 2
    assert [row["epoch"] for row in rows] == list(range(1, 31))
    assert {row["attempt"] for row in rows} == {1, 2}


def test_service_stopped_and_started_again__a_running_job_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    with served(tmp_path / "data", "--num-cpus", "2") as service:
        job_id = _submit(service, epochs=30, optimizer={"variant": "sam"})
        _wait_epoch(service, job_id, 2)
    with served(tmp_path / "data", "--num-cpus", "2") as service:
        job = _wait_end(service, job_id)
        rows = httpx.get(f"{service.url}/v1/jobs/{job_id}/metrics").json()["items"]
    assert job["state"] == "succeeded"
    assert [row["epoch"] for row in rows] == list(range(1, 31))
