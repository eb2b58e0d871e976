"""From a SIGKILL of a runner to the first training step of the job's next attempt."""

import argparse
import os
import signal
import tempfile
import time
from pathlib import Path

import httpx
from sqlalchemy import select

from tests.bench.figures import median, table
from tests.support.served import Served, served
from xsam.services.jobs.models import JobAttempt

_SPEC = {"epochs": 300, "optimizer": {"variant": "sam"}}


def measure(repeats: int) -> str:
    """Return the table of seconds from the kill to the first step."""
    with tempfile.TemporaryDirectory() as folder, served(Path(folder) / "data") as service:
        times = [_once(service) for _ in range(repeats)]
    rows = [["runner", len(times), f"{median(times):.2f}", f"{max(times):.2f}"]]
    return table(["killed", "times", "median s to the next attempt's first step", "longest s"], rows)


def _once(service: Served) -> float:
    job_id = httpx.post(service.url + "/v1/jobs", json=_SPEC).raise_for_status().json()["id"]
    while _job(service, job_id)["progress"]["epochs_done"] < 2:
        time.sleep(0.1)
    events = httpx.get(f"{service.url}/v1/jobs/{job_id}/events").raise_for_status().json()["items"]
    (runner,) = [event["data"]["runner_pid"] for event in events if event["kind"] == "training"]
    killed_at = time.time()
    os.kill(runner, signal.SIGKILL)
    while (step_at := _first_step_at(service, job_id)) is None:
        time.sleep(0.1)
    httpx.post(f"{service.url}/v1/jobs/{job_id}/cancel").raise_for_status()
    while _job(service, job_id)["state"] == "running":
        time.sleep(0.1)
    time.sleep(10)  # warm processes are there again
    return step_at - killed_at


def _first_step_at(service: Served, job_id: str) -> float | None:
    attempt = (JobAttempt.job_id == job_id, JobAttempt.number == 2)
    with service.database.read() as session:
        instant = session.scalar(select(JobAttempt.first_step_at).where(*attempt))
    return None if instant is None else instant.timestamp()


def _job(service: Served, job_id: str) -> dict[str, object]:
    return dict(httpx.get(f"{service.url}/v1/jobs/{job_id}").raise_for_status().json())


def main() -> None:
    """Print the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    print(measure(parser.parse_args().repeats))


if __name__ == "__main__":
    main()
