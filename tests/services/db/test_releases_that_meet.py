"""A rolling upgrade: processes of the release before go on beside the new schema and the new code, and lose nothing."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select

from tests.support import jobs
from tests.support.callers import make_team, make_webhook
from tests.support.old_release import SCHEMA, OldRelease
from tests.support.row_runner import SUMMARY, epoch_record
from xsam.services.db import migrate
from xsam.services.db.session import Database
from xsam.services.jobs import queue, wishes
from xsam.services.jobs.states import JobState, Wish
from xsam.services.metrics import service as metrics
from xsam.services.notifications.models import Delivery
from xsam.services.retention import collecting
from xsam.services.settings import ArtifactSettings
from xsam.services.stores.folder import FolderStore

_RUNNER = """
import sys
from tests.support import jobs
from tests.support.row_runner import epoch_record
from xsam.services.db import migrate
from xsam.services.db.session import Database
from xsam.services.jobs import queue
from xsam.services.metrics import service as metrics

database = Database(sys.argv[1])
assert migrate.revisions()[-1] == sys.argv[2], migrate.__file__
lease = jobs.claim(database, sys.argv[3]) if len(sys.argv) > 3 else jobs.submit_and_claim(database)

def report(*epochs):
    with database.unit_of_work() as session:
        metrics.write_epochs(session, lease, [epoch_record(epoch) for epoch in epochs])

report(1, 2)
print(lease.job_id, flush=True)
sys.stdin.readline()
report(3)
with database.unit_of_work() as session:
    print(queue.renew_lease(session, lease, lease_s=60), flush=True)
sys.stdin.readline()
report(4)
with database.unit_of_work() as session:
    queue.complete(session, lease, summary={"best_value": 0.5})
"""


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> OldRelease:
    return OldRelease(tmp_path_factory.mktemp("old"))


@pytest.fixture
def database(empty_database_url: str) -> Iterator[Database]:
    """A database with the schema of the earlier release."""
    database = Database(empty_database_url)
    migrate.upgrade(database, SCHEMA)
    yield database
    database.dispose()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    assert line, f"it ended with {process.wait(30)}"
    return line


def _go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_runner_of_the_release_before__goes_on_through_the_migration_and_loses_no_epoch(
    database: Database, empty_database_url: str, old: OldRelease, tmp_path: Path
) -> None:
    with old.start("-c", _RUNNER, empty_database_url, SCHEMA) as runner:
        job_id = _line(runner)
        migrate.upgrade(database)
        make_team(database, "red")
        make_webhook(database, "red")
        assert jobs.reap(database) == [], "the new reaper leaves it alone"
        assert collecting.collect(database, FolderStore(tmp_path), ArtifactSettings(row_keep_days=1e-6)) == []
        with database.unit_of_work() as session:
            wishes.request_pause(session, job_id, actor="ann")
        _go_on(runner)
        assert _line(runner) == Wish.PAUSE, "it hears what the new release is told"
        _go_on(runner)
        assert runner.wait(60) == 0
    assert jobs.state(database, job_id) is JobState.SUCCEEDED
    with database.read() as session:
        assert [one.epoch for one in metrics.list_epochs(session, job_id)] == [1, 2, 3, 4]
        # Said in the operator's page: ends that the old release writes are told to no webhook.
        assert session.scalars(select(Delivery)).all() == []


def test_dispatcher_of_the_release_before__takes_jobs_of_the_new_one(
    database: Database, empty_database_url: str, old: OldRelease
) -> None:
    migrate.upgrade(database)
    job_id = jobs.submit(database, labels={"keep": "yes"})
    with old.start("-c", _RUNNER, empty_database_url, SCHEMA, job_id) as runner:
        assert _line(runner) == job_id
        _go_on(runner)
        _line(runner)
        _go_on(runner)
        assert runner.wait(60) == 0
    assert jobs.state(database, job_id) is JobState.SUCCEEDED


def test_api_of_the_release_before__goes_on_beside_the_new_schema(
    empty_database_url: str, old: OldRelease, tmp_path: Path
) -> None:
    words = ("-m", "xsam.api", "serve", "--no-dispatcher", "--port", "0", "--data-dir", str(tmp_path / "data"))
    with old.start(*words, XSAM_DATABASE__URL=empty_database_url, XSAM_API__AUTH="none") as api:
        try:
            url = next(word for word in _line(api).split() if word.startswith("http://"))
            with httpx.Client(base_url=url, timeout=30) as http:
                before = http.post("/v1/jobs", json={"name": "before"}).raise_for_status().json()
                database = Database(empty_database_url)
                migrate.upgrade(database)
                after = http.post("/v1/jobs", json={"name": "after"}).raise_for_status().json()
                lease = jobs.claim(database, after["id"])
                with database.unit_of_work() as session:
                    metrics.write_epochs(session, lease, [epoch_record(1)])
                    queue.complete(session, lease, summary=SUMMARY)
                seen = http.get(f"/v1/jobs/{after['id']}").raise_for_status().json()
                assert seen["state"] == "succeeded"
                assert len(http.get(f"/v1/jobs/{after['id']}/metrics").json()["items"]) == 1
                not_ready = http.get("/readyz")
                assert not_ready.status_code == 503
                assert "schema" in not_ready.text
        finally:
            api.terminate()
    assert jobs.state(database, before["id"]) is JobState.QUEUED
    database.dispose()
