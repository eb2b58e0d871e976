"""One machine's own Ray: when its node process dies, the service gets a new cluster by itself."""

import os
import signal
from pathlib import Path

import httpx
import pytest

from tests.support.processes import descendants
from tests.support.served import served, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.ray, pytest.mark.slow]


def test_raylet__is_killed_and_jobs_run_again(tmp_path: Path) -> None:
    with served(tmp_path / "data", "--num-cpus", "1", is_warmed=False) as service:
        (raylet,) = [pid for pid, title in descendants(service.process.pid).items() if "raylet/raylet" in title]
        os.kill(raylet, signal.SIGKILL)
        submitted = httpx.post(f"{service.url}/v1/jobs", json={"epochs": 1}).raise_for_status().json()
        wait_until(lambda: httpx.get(f"{service.url}/v1/jobs/{submitted['id']}").json()["state"] == "succeeded")
