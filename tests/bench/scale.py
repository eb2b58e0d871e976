"""Past one machine, on PostgreSQL: time of a decision, leases renewed at once, what a running job asks for."""

import argparse
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import event, insert, select, update

from tests.bench.figures import percentile, table
from tests.bench.queue_scale import fill
from tests.bench.submit_latency import scratch_postgres
from xsam.services.cluster import service as cluster
from xsam.services.cluster.service import NodeSeen
from xsam.services.db import migrate
from xsam.services.db.base import new_id
from xsam.services.db.clock import db_now
from xsam.services.db.session import Database
from xsam.services.errors import LeaseLostError
from xsam.services.jobs import queue
from xsam.services.jobs.models import Job, JobAttempt
from xsam.services.jobs.queue import Lease
from xsam.services.jobs.states import JobState
from xsam.services.scheduling import snapshot as scheduling
from xsam.services.scheduling.policy.plan import plan
from xsam.services.scheduling.run_times import RunTimes
from xsam.services.scheduling.seen import SeenJobs
from xsam.services.settings import SchedulingSettings
from xsam.services.specs.job import JobSpec
from xsam.workers.runner.lease import LeaseKeeper

GPUS_PER_NODE = 8
LEASE_S = 15.0
CHUNK = 5_000


def measure_decision(database: Database, *, num_queued: int, num_gpus: int, repeats: int) -> list[list[object]]:
    """Time snapshot and plan with that many queued jobs on a cluster that is nine tenths full."""
    nodes = [NodeSeen(f"n{i}", f"host-{i}", 64.0, float(GPUS_PER_NODE)) for i in range(num_gpus // GPUS_PER_NODE)]
    with database.unit_of_work() as session:
        cluster.report_alive(session, "bench", nodes=nodes, num_warm_runners=0)
    fill(database, num_queued)
    with database.unit_of_work() as session:
        session.execute(update(Job).values(gpus_per_worker=1.0))
    run(database, [node.id for node in nodes for _ in range(GPUS_PER_NODE)][: num_gpus * 9 // 10])
    analyze(database)
    read, planned = [], []
    run_times, seen = RunTimes(), SeenJobs()
    for _ in range(repeats):
        start = time.perf_counter()
        with database.read() as session:
            snapshot = scheduling.take_snapshot(session, nodes, run_times=run_times, seen=seen)
        middle = time.perf_counter()
        plan(snapshot, SchedulingSettings())
        read.append(middle - start)
        planned.append(time.perf_counter() - middle)
    both = [first + second for first, second in zip(read, planned, strict=True)]
    what = f"decision, {num_queued:,} queued jobs, {num_gpus:,} GPUs"
    return [
        [f"{what}: reading, p50", f"{percentile(read, 0.5) * 1e3:.0f} ms", "-"],
        [f"{what}: planning, p50", f"{percentile(planned, 0.5) * 1e3:.0f} ms", "-"],
        [
            f"{what}: both, p50 and p99",
            f"{percentile(both, 0.5) * 1e3:.0f}, {percentile(both, 0.99) * 1e3:.0f} ms",
            "500 ms",
        ],
    ]


def run(database: Database, places: Sequence[str]) -> list[Lease]:
    """Insert running jobs, one GPU each, and return their leases."""
    spec = JobSpec().model_dump(mode="json")
    leases = [Lease(new_id(), new_id(), 1) for _ in places]
    for start in range(0, len(leases), CHUNK):
        part = list(zip(leases, places, strict=True))[start : start + CHUNK]
        with database.unit_of_work() as session:
            expires = session.scalar(select(db_now(LEASE_S)))
            session.execute(insert(Job), [_running(spec, lease, place, expires) for lease, place in part])
            session.execute(insert(JobAttempt), [_attempt(lease) for lease, _ in part])
    return leases


def _running(spec: dict[str, object], lease: Lease, place: str, expires: object) -> dict[str, object]:
    held = {"num_workers": 1, "gpus_per_worker": 1.0, "cpus_per_worker": 1, "num_epochs": 10, "placement": [place]}
    whose = {"id": lease.job_id, "team": "red", "submitted_by": "ann", "spec": spec}
    state = {"state": JobState.RUNNING, "attempt": 1, "lease_token": lease.token, "lease_expires_at": expires}
    return {**held, **whose, **state, "runner": "bench"}


def _attempt(lease: Lease) -> dict[str, object]:
    return {"job_id": lease.job_id, "number": 1, "runner": "bench"}


def analyze(database: Database) -> None:
    """Let PostgreSQL know what is there, as it would by itself after a while."""
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")


def measure_leases(database: Database, *, num_leases: int, num_threads: int, rounds: int) -> list[list[object]]:
    """Renew all leases again and again from so many connections; each must come before the lease has run out."""
    leases = run(database, ["n0"] * num_leases)
    parts = [leases[number::num_threads] for number in range(num_threads)]
    lost = []
    start = time.perf_counter()
    for _ in range(rounds):
        with ThreadPoolExecutor(num_threads) as pool:
            lost += [one for found in pool.map(lambda part: list(_renew(database, part)), parts) for one in found]
    per_s = num_leases * rounds / (time.perf_counter() - start)
    needed = num_leases / (LEASE_S / 3)
    return [
        [f"{num_leases:,} leases of {LEASE_S:g} s renewed, {rounds} rounds: lost", len(lost), "0"],
        ["renewals a second, of those needed", f"{per_s:,.0f} of {needed:,.0f}", f"{needed:,.0f}"],
    ]


def _renew(database: Database, leases: Sequence[Lease]) -> Iterator[Lease]:
    for lease in leases:
        try:
            with database.one_statement() as session:
                queue.renew_lease(session, lease, lease_s=LEASE_S)
        except LeaseLostError:
            yield lease


def measure_keeper(database: Database, *, seconds: float) -> list[list[object]]:
    """Count what one running job asks of the database while nothing is reported: lease and wishes."""
    [lease] = run(database, ["n0"])
    told = [0, 0]
    lock = threading.Lock()

    def count(connection: object, cursor: object, statement: str, values: object, context: object, many: bool) -> None:
        with lock:
            told[0] += 1
            told[1] += len(statement) + len(repr(values))

    event.listen(database.engine, "before_cursor_execute", count)
    keeper = LeaseKeeper(database, lease, lease_s=LEASE_S, on_lost=lambda: None)
    time.sleep(seconds)
    keeper.close()
    return [
        ["a running job that reports nothing: statements a second", f"{told[0] / seconds:.2f}", "-"],
        ["the same: bytes of statements and values a second", f"{told[1] / seconds:,.0f}", "-"],
    ]


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queued", type=int, default=100_000)
    parser.add_argument("--gpus", type=int, default=10_000)
    parser.add_argument("--leases", type=int, default=5_000)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=10)
    given = parser.parse_args()
    with scratch_postgres() as url:
        database = Database(url, pool_size=given.threads)
        migrate.upgrade(database)
        rows = measure_keeper(database, seconds=10)
        rows += measure_leases(database, num_leases=given.leases, num_threads=given.threads, rounds=3)
        with database.unit_of_work() as session:
            session.execute(Job.__table__.delete())
        rows += measure_decision(database, num_queued=given.queued, num_gpus=given.gpus, repeats=given.repeats)
        database.dispose()
    print(table(["what", "measured", "target"], rows))


if __name__ == "__main__":
    main()
