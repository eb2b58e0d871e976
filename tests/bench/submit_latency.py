"""Latency of a submit over loopback: SQLite, PostgreSQL, and Ray's own job submission, in one run."""

import argparse
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import ray
from ray.job_submission import JobSubmissionClient

from tests.bench.figures import percentile, table
from tests.support.served import PATIENCE_S, served

_POSTGRES = os.environ.get("XSAM_TEST_POSTGRES_URL", "postgresql+psycopg://postgres@127.0.0.1/postgres")
_SPEC = {"epochs": 1, "labels": {"purpose": "bench"}}


def measure(num_submits: int, num_ray_submits: int) -> str:
    """Return the table: p50 and p99 in milliseconds, and the ratio of each p50 to Ray's."""
    times = {"Ray JobSubmissionClient": _ray_times(num_ray_submits)}
    with tempfile.TemporaryDirectory() as folder, served(Path(folder) / "data", "--no-dispatcher") as service:
        times["xsam, SQLite"] = _service_times(service.url, num_submits)
    with (
        tempfile.TemporaryDirectory() as folder,
        scratch_postgres() as url,
        served(Path(folder) / "data", "--no-dispatcher", database_url=url) as service,
    ):
        times["xsam, PostgreSQL"] = _service_times(service.url, num_submits)
    baseline = percentile(times["Ray JobSubmissionClient"], 0.5)
    rows = []
    for name, values in times.items():
        p50, p99 = percentile(values, 0.5), percentile(values, 0.99)
        rows.append([name, len(values), f"{p50 * 1e3:.1f}", f"{p99 * 1e3:.1f}", f"{p50 / baseline:.3f}"])
    return table(["submit", "calls", "p50 ms", "p99 ms", "p50 / Ray's p50 (target <= 0.2)"], rows)


@contextmanager
def scratch_postgres() -> Iterator[str]:
    """Make an empty database on the test server and drop it afterwards."""
    name = f"bench_{uuid.uuid4().hex[:8]}"
    server = _POSTGRES.replace("+psycopg", "")
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')  # type: ignore[call-overload]
    try:
        yield _POSTGRES.rsplit("/", 1)[0] + "/" + name
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')  # type: ignore[call-overload]


def _service_times(url: str, count: int) -> list[float]:
    with httpx.Client(base_url=url) as client:
        return _timed(lambda: client.post("/v1/jobs", json=_SPEC).raise_for_status(), count)


def _ray_times(count: int) -> list[float]:
    context = ray.init(num_cpus=2, include_dashboard=True, log_to_driver=False)
    try:
        client = JobSubmissionClient(f"http://{context.dashboard_url}")
        _wait_for_agent(client)
        return _timed(lambda: client.submit_job(entrypoint="true"), count)
    finally:
        ray.shutdown()


def _wait_for_agent(client: JobSubmissionClient) -> None:
    """Submit until Ray takes it: its agent starts after `ray.init` has returned."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            client.submit_job(entrypoint="true")
            return
        except RuntimeError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def _timed(call: Callable[[], object], count: int) -> list[float]:
    call()
    times = []
    for _ in range(count):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--submits", type=int, default=1000)
    parser.add_argument("--ray-submits", type=int, default=30)
    arguments = parser.parse_args()
    print(measure(arguments.submits, arguments.ray_submits))


if __name__ == "__main__":
    main()
