"""The service's share of the time that the runs of a lab took: places that held a trial before its first step, or none.

Looks at the rows of a service on this machine; `xsam lab run` makes them.
"""

import argparse
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import select

from tests.bench.figures import table
from xsam.services.db.session import Database
from xsam.services.jobs.models import KIND_STUDY, Job, JobAttempt
from xsam.services.lab.models import SUCCEEDED, LabRun
from xsam.services.settings import Settings
from xsam.services.studies.models import Trial

Span = tuple[datetime, datetime]


def measure(database: Database, places: int) -> str:
    """Return the table of all runs that have succeeded.

    Args:
        database: of a service that has run nothing but the lab meanwhile.
        places: jobs that its processors hold at a time.
    """
    with database.read() as session:
        runs = session.scalars(select(LabRun).where(LabRun.state == SUCCEEDED)).all()
        queued = [done["id"] for run in runs for done in run.work.values() if "id" in done]
        trials = session.scalars(select(Trial.job_id).where(Trial.study_id.in_(queued))).all()
        query = select(JobAttempt.started_at, JobAttempt.first_step_at, JobAttempt.finished_at)
        of_jobs = query.join(Job, Job.id == JobAttempt.job_id).where(Job.kind != KIND_STUDY)
        attempts = session.execute(of_jobs.where(Job.id.in_([*queued, *trials]))).all()
    held = [(one.started_at, one.finished_at) for one in attempts if one.finished_at is not None]
    trained = [
        (one.first_step_at, one.finished_at)
        for one in attempts
        if one.finished_at is not None and one.first_step_at is not None
    ]
    if not trained:
        raise SystemExit("no run with a job that trained has succeeded")
    wall_s = _covered_s(held)
    rows = [
        ["runs, attempts", f"{len(runs)}, {len(held)}"],
        ["hours in which anything was held", f"{wall_s / 3600:.2f}"],
        ["share of the places' time before first steps", f"{1 - _sum_s(trained) / _sum_s(held):.1%}"],
        ["share of the places' time without training", f"{1 - _sum_s(trained) / (places * wall_s):.1%} (target 5 %)"],
    ]
    return table(["the lab", ""], rows)


def _sum_s(spans: Sequence[Span]) -> float:
    return sum((end - start for start, end in spans), timedelta()).total_seconds()


def _covered_s(spans: Sequence[Span]) -> float:
    """Return how long at least one span lasted: a service that was down for a night does not count."""
    total, until = timedelta(), None
    for start, end in sorted(spans):
        begin = start if until is None else max(start, until)
        if end > begin:
            total += end - begin
            until = end
    return total.total_seconds()


def main() -> None:
    """Print the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=Path("xsam-data"), help="of the service")
    parser.add_argument("--places", type=int, default=2, help="jobs that run at a time")
    given = parser.parse_args()
    database = Database(Settings(data_dir=given.data_dir).database_url)
    try:
        print(measure(database, given.places))
    finally:
        database.dispose()


if __name__ == "__main__":
    main()
