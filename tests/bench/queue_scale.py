"""How submit, list, why and claim slow down as the queue grows, on PostgreSQL and SQLite, in one run."""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import insert, select

from tests.bench.figures import percentile, table
from tests.bench.submit_latency import scratch_postgres
from tests.support.served import served
from xsam.services.cluster import service as cluster
from xsam.services.cluster.service import NodeSeen
from xsam.services.db.base import new_id
from xsam.services.db.session import Database
from xsam.services.jobs import queue
from xsam.services.jobs.models import Job
from xsam.services.jobs.states import JobState
from xsam.services.process import freeze_imports
from xsam.services.scheduling import last_decision
from xsam.services.scheduling import snapshot as scheduling
from xsam.services.scheduling.policy.plan import plan
from xsam.services.scheduling.run_times import RunTimes
from xsam.services.specs.job import JobSpec
from xsam.services.studies import trials

_CHUNK = 5_000
_NUM_TEAMS = 5
_NODE = NodeSeen("node", "bench", 1.0, 0.0)
_OPERATIONS = ("submit", "list", "why", "claim")


def measure(sizes: dict[str, list[int]], repeats: int) -> str:
    """Return the table: p50 and p99 in milliseconds for each size, and the growth from the smallest to the largest."""
    rows = []
    for name, counts in sizes.items():
        found = dict(_by_size(name, counts, repeats))
        for operation in _OPERATIONS:
            p50 = {count: percentile(times[operation], 0.5) * 1e3 for count, times in found.items()}
            p99 = {count: percentile(times[operation], 0.99) * 1e3 for count, times in found.items()}
            cells = "; ".join(f"{count:,}: {p50[count]:.1f} / {p99[count]:.1f}" for count in counts)
            growth = f"{p50[counts[-1]] / p50[counts[0]]:.2f} / {p99[counts[-1]] / p99[counts[0]]:.2f}"
            rows.append([name, operation, cells, growth])
    return table(["database", "call", "queued jobs: p50 / p99 ms", "growth of p50 / p99 (target <= 1.5)"], rows)


def _by_size(name: str, counts: list[int], repeats: int) -> Iterator[tuple[int, dict[str, list[float]]]]:
    with (
        tempfile.TemporaryDirectory() as folder,
        database_url(name, Path(folder)) as url,
        served(Path(folder) / "data", "--no-dispatcher", database_url=url) as service,
    ):
        for count in counts:
            fill(service.database, count)
            yield count, _time_operations(service.url, service.database, repeats)


@contextmanager
def database_url(name: str, folder: Path) -> Iterator[str | None]:
    if name == "SQLite":
        yield None
        return
    with scratch_postgres() as url:
        yield url


def fill(database: Database, count: int) -> None:
    """Bring the queue to `count` jobs, by inserting rows, and let a busy cluster be seen."""
    spec = JobSpec().model_dump(mode="json")
    with database.unit_of_work() as session:
        cluster.report_alive(session, "bench", nodes=[_NODE], num_warm_runners=0)
    with database.read() as session:
        ids = set(session.scalars(select(Job.id).where(Job.state == JobState.QUEUED)))
    while len(ids) < count:
        rows = [_row(spec, number) for number in range(min(_CHUNK, count - len(ids)))]
        with database.unit_of_work() as session:
            session.execute(insert(Job), rows)
        ids |= {str(row["id"]) for row in rows}
    if not database.is_sqlite:
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("ANALYZE jobs")
    _plan(database)


def _plan(database: Database) -> None:
    """Decide once and publish it, as a dispatcher would: `why` answers from that."""
    with database.read() as session:
        snapshot = scheduling.take_snapshot(session, [_NODE], takers=trials.has_takers(), run_times=RunTimes())
    decision = plan(snapshot)
    with database.unit_of_work() as session:
        last_decision.publish(session, snapshot, decision)


def _row(spec: dict[str, object], number: int) -> dict[str, object]:
    return {
        "id": new_id(),
        "team": f"team-{number % _NUM_TEAMS}",
        "submitted_by": f"user-{number % (3 * _NUM_TEAMS)}",
        "spec": spec,
        "priority": number % 3,
        "num_workers": 1,
        "gpus_per_worker": 0.0,
        "cpus_per_worker": 1,
        "num_epochs": 10,
    }


def _time_operations(url: str, database: Database, repeats: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {operation: [] for operation in _OPERATIONS}
    with httpx.Client(base_url=url, timeout=60) as client:
        for _ in range(repeats):
            _time_one_job(client, database, times)
            time.sleep(0.02)  # stays below the rate limit
    return times


def _time_one_job(client: httpx.Client, database: Database, times: dict[str, list[float]]) -> None:
    answer = _timed(times["submit"], lambda: client.post("/v1/jobs", json={}).raise_for_status())
    job_id = answer.json()["id"]
    _timed(times["list"], lambda: client.get("/v1/jobs", params={"state": "queued"}).raise_for_status())
    _timed(times["why"], lambda: client.get(f"/v1/jobs/{job_id}/why").raise_for_status())
    _timed(times["claim"], lambda: _claim(database, job_id))


def _claim(database: Database, job_id: str) -> None:
    with database.unit_of_work() as session:
        claimed = queue.claim(session, job_id, runner="bench", lease_s=60, placement=["node"])
        if claimed is None:
            raise RuntimeError(f"job {job_id} could not be claimed")
        queue.complete(session, claimed.lease, summary={})


def _timed(times: list[float], call: Callable[[], Any]) -> Any:
    start = time.perf_counter()
    answer = call()
    times.append(time.perf_counter() - start)
    return answer


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--quick", action="store_true", help="small queues, to see that it works")
    arguments = parser.parse_args()
    freeze_imports()  # claims are timed in this process
    sizes = {"PostgreSQL": [1_000, 10_000, 100_000], "SQLite": [1_000, 10_000]}
    if arguments.quick:
        sizes = {name: [100, 300] for name in sizes}
    print(measure(sizes, arguments.repeats))


if __name__ == "__main__":
    main()
