"""Fifty jobs report twenty rows a second each: is anything lost, and does the API stay quick meanwhile?"""

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import func, select

from tests.bench.figures import percentile, table
from tests.bench.submit_latency import scratch_postgres
from tests.support.served import served
from xsam.services.db.session import Database
from xsam.services.jobs import queue
from xsam.services.jobs.queue import Lease
from xsam.services.metrics.models import EpochMetric
from xsam.services.metrics.records import EpochRecord
from xsam.workers.runner.recorder import Recorder

RAY_NICE = 15
"""Ray's default for workers."""


def measure(num_jobs: int, rows_per_s: int, duration_s: float) -> str:
    """Return the table: rows sent and stored, and the API's latency without and under the load."""
    with (
        tempfile.TemporaryDirectory() as folder,
        scratch_postgres() as url,
        served(Path(folder) / "data", "--no-dispatcher", database_url=url) as service,
        httpx.Client(base_url=service.url, timeout=30) as client,
    ):
        job_ids = [client.post("/v1/jobs", json={}).raise_for_status().json()["id"] for _ in range(num_jobs)]
        idle = _api_times(client, job_ids, lambda: False, duration_s / 3)
        database = Database(url, pool_size=2)
        leases = [_claim(database, job_id) for job_id in job_ids]
        spawning = multiprocessing.get_context("spawn")
        sent = spawning.SimpleQueue()
        reporter = spawning.Process(target=_report, args=(url, leases, rows_per_s, duration_s, sent))
        reporter.start()
        sent.get()  # it has begun
        loaded = _api_times(client, job_ids, lambda: not sent.empty(), duration_s * 4)
        num_sent = sent.get()
        reporter.join()
        with database.read() as session:
            stored = session.scalar(select(func.count()).select_from(EpochMetric)) or 0
        database.dispose()
    rows = [
        ["rows sent / stored", f"{num_sent:,} / {stored:,}", "none lost"],
        ["rows a second", f"{stored / duration_s:,.0f}", f"{num_jobs * rows_per_s:,}"],
        ["API p99 without load, ms", f"{percentile(idle, 0.99) * 1e3:.1f}", "-"],
        ["API p50 / p99 under load, ms", " / ".join(f"{percentile(loaded, s) * 1e3:.1f}" for s in (0.5, 0.99)), "< 50"],
    ]
    return table([f"{num_jobs} jobs, {rows_per_s} rows a second each, PostgreSQL", "measured", "target"], rows)


def _claim(database: Database, job_id: str) -> Lease:
    with database.unit_of_work() as session:
        claimed = queue.claim(session, job_id, runner="bench", lease_s=3600)
        if claimed is None:
            raise RuntimeError(f"job {job_id} could not be claimed")
        return claimed.lease


def _report(url: str, leases: list[Lease], rows_per_s: int, duration_s: float, sent: Any) -> None:
    """Send rows through one recorder per job, as its runner does, and wait until all are stored.

    A process of its own, with the priority that Ray gives to its workers.
    """
    os.nice(RAY_NICE)
    database = Database(url, pool_size=10)
    recorders = [Recorder(database, lease, Path("/nonexistent"), on_lost=lambda: None) for lease in leases]
    sent.put("begun")
    start = time.monotonic()
    num_rounds = int(rows_per_s * duration_s)
    for number in range(1, num_rounds + 1):
        for recorder in recorders:
            recorder.put(_record(number))
        time.sleep(max(0.0, start + number / rows_per_s - time.monotonic()))
    for recorder in recorders:
        recorder.close()
    database.dispose()
    sent.put(num_rounds * len(leases))


def _record(number: int) -> EpochRecord:
    return EpochRecord(number, number, 1.0, 0.5, 1.0, 0.5, 0.1, 0.05, 1000.0, number, 0)


def _api_times(client: httpx.Client, job_ids: list[str], is_done: Callable[[], bool], limit_s: float) -> list[float]:
    times = []
    deadline = time.monotonic() + limit_s
    while not is_done() and time.monotonic() < deadline:
        for path in ("", f"/{job_ids[len(times) % len(job_ids)]}", f"/{job_ids[0]}/metrics?after=1000000"):
            start = time.perf_counter()
            client.get(f"/v1/jobs{path}").raise_for_status()
            times.append(time.perf_counter() - start)
        time.sleep(0.05)
    return times


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=50)
    parser.add_argument("--rows-per-s", type=int, default=20)
    parser.add_argument("--duration-s", type=float, default=20.0)
    arguments = parser.parse_args()
    print(measure(arguments.jobs, arguments.rows_per_s, arguments.duration_s))


if __name__ == "__main__":
    main()
