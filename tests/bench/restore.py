"""How long a backup and its restore take, with that many jobs of an attempt and ten epochs each; no files."""

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from sqlalchemy import insert, select

from tests.bench.figures import table
from tests.bench.queue_scale import fill
from tests.bench.submit_latency import scratch_postgres
from xsam.services import backup
from xsam.services.db import migrate
from xsam.services.db.session import Database
from xsam.services.jobs.models import Job, JobAttempt
from xsam.services.metrics.models import EpochMetric
from xsam.services.stores.folder import FolderStore

EPOCHS = 10
CHUNK = 2_000


def measure(num_jobs: int) -> str:
    """Return the table: seconds and rows a second."""
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        source = _opened(stack.enter_context(scratch_postgres()))
        migrate.upgrade(source)
        fill(source, num_jobs)
        _let_them_have_run(source)
        file = folder / "backup.tar"
        start = time.perf_counter()
        made = backup.make(source, FolderStore(folder / "none"), file, with_files=False)
        num_rows = sum(made.num_rows.values())
        rows.append(_row("backup of PostgreSQL", num_rows, time.perf_counter() - start))
        targets = {"PostgreSQL": stack.enter_context(scratch_postgres()), "SQLite": f"sqlite:///{folder / 'x.db'}"}
        for kind, url in targets.items():
            target = _opened(url)
            start = time.perf_counter()
            backup.restore(target, FolderStore(folder / f"artifacts-{kind}"), file)
            rows.append(_row(f"restore into {kind}", num_rows, time.perf_counter() - start))
            target.dispose()
        source.dispose()
    return table(["what", "rows", "seconds", "rows a second"], rows)


def _opened(url: str) -> Database:
    return Database(url, pool_size=2)


def _row(what: str, num_rows: int, seconds: float) -> list[object]:
    return [what, f"{num_rows:,}", f"{seconds:.1f}", f"{num_rows / seconds:,.0f}"]


def _let_them_have_run(database: Database) -> None:
    with database.read() as session:
        ids = session.scalars(select(Job.id)).all()
    for start in range(0, len(ids), CHUNK):
        part = ids[start : start + CHUNK]
        with database.unit_of_work() as session:
            session.execute(insert(JobAttempt), [{"job_id": one, "number": 1, "runner": "bench"} for one in part])
            session.execute(insert(EpochMetric), list(_epochs(part)))


def _epochs(job_ids: list[str]) -> Iterator[dict[str, object]]:
    same = {"attempt": 1, "train_loss": 1.0, "train_accuracy": 0.5, "eval_loss": 1.0, "eval_accuracy": 0.5, "lr": 0.1}
    work = {"epoch_s": 1.0, "samples_per_s": 100.0, "grad_evals": 10, "probe_forwards": 0}
    for job_id in job_ids:
        for epoch in range(1, EPOCHS + 1):
            yield {"job_id": job_id, "epoch": epoch, "step": 10 * epoch, **same, **work}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    print(measure(parser.parse_args().jobs))


if __name__ == "__main__":
    main()
