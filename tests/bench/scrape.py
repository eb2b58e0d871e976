"""What observing costs: a scrape of `/metrics` as the queue grows, and as history does."""

import argparse
import tempfile
import time
from pathlib import Path

import httpx
from sqlalchemy import update

from tests.bench.figures import percentile, table
from tests.bench.queue_scale import database_url, fill
from tests.support.served import Served, served
from xsam.services.db.clock import db_now
from xsam.services.jobs.models import Job
from xsam.services.jobs.states import JobState


def measure(num_jobs: int, repeats: int) -> str:
    """Return the table: p50 and p99 in milliseconds with that many queued jobs, then with them all ended."""
    rows = []
    for name in ("SQLite", "PostgreSQL"):
        with (
            tempfile.TemporaryDirectory() as folder,
            database_url(name, Path(folder)) as url,
            served(Path(folder) / "data", "--no-dispatcher", database_url=url) as service,
        ):
            rows.append([name, "0", *_scrapes(service, repeats)])
            fill(service.database, num_jobs)
            rows.append([name, f"{num_jobs:,} queued", *_scrapes(service, repeats)])
            with service.database.unit_of_work() as session:
                ended = {"state": JobState.SUCCEEDED, "finished_at": db_now(), "state_since": db_now()}
                session.execute(update(Job).values(ended))
            rows.append([name, f"{num_jobs:,} ended", *_scrapes(service, repeats)])
    return table(["database", "jobs", "p50 ms", "p99 ms (target < 50)"], rows)


def _scrapes(service: Served, repeats: int) -> tuple[str, str]:
    times = []
    with httpx.Client(base_url=service.url, timeout=60) as client:
        for _ in range(repeats):
            start = time.perf_counter()
            client.get("/metrics").raise_for_status()
            times.append(time.perf_counter() - start)
            time.sleep(0.02)
    return f"{percentile(times, 0.5) * 1e3:.1f}", f"{percentile(times, 0.99) * 1e3:.1f}"


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=200)
    given = parser.parse_args()
    print(measure(given.jobs, given.repeats))


if __name__ == "__main__":
    main()
