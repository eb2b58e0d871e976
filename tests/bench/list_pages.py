"""Server time of a page of jobs in each order, at the beginning and far down, and of counts (target: p99 100 ms)."""

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import text

from tests.bench.figures import percentile, table
from tests.bench.queue_scale import fill
from tests.bench.submit_latency import scratch_postgres
from xsam.services.db import migrate
from xsam.services.db.session import Database
from xsam.services.jobs.listing import CountBy, JobFilter, JobSort
from xsam.services.process import freeze_imports
from xsam.services.reports import job_rows

_PAGE = 50
_ENDED = """
UPDATE jobs
SET state = 'succeeded', name = 'run ' || substr(id, 1, 6), best_value = priority * 0.3, grad_evals = priority
WHERE submitted_by <> 'user-0'
"""


def measure(sizes: dict[str, int], repeats: int) -> str:
    """Return the table: p50 and p99 in milliseconds for each database and kind of page."""
    rows = []
    for name, count in sizes.items():
        with tempfile.TemporaryDirectory() as folder, _opened(name, Path(folder)) as database:
            fill(database, count)
            with database.unit_of_work() as session:
                session.execute(text(_ENDED))
            if name == "PostgreSQL":
                with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                    connection.execute(text("VACUUM ANALYZE jobs"))  # autovacuum does within a minute of such a change
            times = _time_pages(database, repeats)
            database.dispose()
        for what, taken in times.items():
            rows.append([name, f"{count:,}", what, *(f"{percentile(taken, p) * 1e3:.1f}" for p in (0.5, 0.99))])
    return table(["database", "jobs", "page", "p50 ms", "p99 ms (target 100)"], rows)


@contextmanager
def _opened(name: str, folder: Path) -> Iterator[Database]:
    if name == "SQLite":
        database = Database(f"sqlite:///{folder / 'bench.db'}")
        migrate.upgrade(database)
        yield database
        return
    with scratch_postgres() as url:
        database = Database(url)
        migrate.upgrade(database)
        yield database


def _time_pages(database: Database, repeats: int) -> dict[str, list[float]]:
    """Walk down each order and time every page."""
    times: dict[str, list[float]] = {}
    for sort in JobSort:
        cursor = None
        for _ in range(repeats):
            start_s = time.perf_counter()
            with database.read() as session:
                page = job_rows.list_rows(session, where=JobFilter(), sort=sort, cursor=cursor, limit=_PAGE)
            times.setdefault(f"sort={sort}", []).append(time.perf_counter() - start_s)
            cursor = page.next_cursor
    for _ in range(repeats):
        start_s = time.perf_counter()
        with database.read() as session:
            job_rows.count(session, where=JobFilter(), by=[CountBy.STATE])
        times.setdefault("count by state", []).append(time.perf_counter() - start_s)
    return times


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--quick", action="store_true", help="short lists, to see that it works")
    arguments = parser.parse_args()
    freeze_imports()
    sizes = {"PostgreSQL": 100_000, "SQLite": 10_000}
    if arguments.quick:
        sizes = dict.fromkeys(sizes, 300)
    print(measure(sizes, arguments.repeats))


if __name__ == "__main__":
    main()
