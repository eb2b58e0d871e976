"""Random histories of a few jobs, checked after every step: what must hold whatever happens in whatever order."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule, run_state_machine_as_test
from sqlalchemy import select

from tests.support import jobs
from tests.support.databases import delete_all_rows
from xsam.services.db.session import Database
from xsam.services.errors import InvalidTransitionError, LeaseLostError
from xsam.services.jobs import queue, stalled, wishes
from xsam.services.jobs.models import Job, JobAttempt
from xsam.services.jobs.queue import Lease
from xsam.services.jobs.states import TERMINAL_STATES, TRANSITIONS, FailureKind, JobState
from xsam.services.specs.job import RetryPolicy

BUDGET = 2
POLICY = RetryPolicy(infrastructure=BUDGET, user=BUDGET)


class QueueHistory(RuleBasedStateMachine):
    """The queue as its callers see it: submitters, runners alive and dead, people, the reaper."""

    submitted = Bundle("submitted")
    leases = Bundle("leases")
    database: Database

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[str, JobState] = {}
        self.held: dict[str, Lease] = {}
        self.forgiven: dict[str, int] = {}

    @rule(target=submitted)
    def submit(self) -> str:
        job_id = jobs.submit(self.database, retry=POLICY.model_dump())
        self.known[job_id] = JobState.QUEUED
        return job_id

    @rule(target=leases, job_id=submitted)
    def claim(self, job_id: str) -> Lease:
        jobs.make_due(self.database, job_id)
        claimed = jobs.try_claim(self.database, job_id)
        assert (claimed is not None) == (self.known[job_id] == JobState.QUEUED)
        if claimed is None:
            return Lease(job_id, "never-given", 0)
        self.held[job_id] = claimed.lease
        return claimed.lease

    @rule(lease=leases)
    def complete(self, lease: Lease) -> None:
        self._write(lease, lambda session: queue.complete(session, lease, summary={}))

    @rule(lease=leases, kind=st.sampled_from([FailureKind.USER, FailureKind.INFRASTRUCTURE, FailureKind.DIVERGED]))
    def fail(self, lease: Lease, kind: FailureKind) -> None:
        def write(session: Any) -> None:
            queue.fail(session, lease, kind=kind, message="x")

        self._write(lease, write)

    @rule(lease=leases)
    def release(self, lease: Lease) -> None:
        wish = jobs.read(self.database, lease.job_id).wish
        is_written = self._write(
            lease, lambda session: queue.release(session, lease, outcome=FailureKind.PREEMPTED, message="x")
        )
        expected = {"cancel": JobState.CANCELLED, "pause": JobState.PAUSED}.get(wish or "", JobState.QUEUED)
        assert not is_written or jobs.state(self.database, lease.job_id) == expected

    @rule(lease=consumes(leases))
    def renew(self, lease: Lease) -> None:
        self._write(lease, lambda session: queue.renew_lease(session, lease, lease_s=60))

    @rule(job_id=submitted)
    def cancel(self, job_id: str) -> None:
        is_allowed = self.known[job_id] not in (JobState.SUCCEEDED, JobState.FAILED)
        assert self._ask(wishes.request_cancel, job_id) == is_allowed

    @rule(job_id=submitted)
    def pause(self, job_id: str) -> None:
        is_doomed = jobs.read(self.database, job_id).wish == "cancel"
        assert self._ask(wishes.request_pause, job_id) == (not is_doomed and self.known[job_id] not in TERMINAL_STATES)

    @rule(job_id=submitted)
    def resume(self, job_id: str) -> None:
        assert self._ask(wishes.resume, job_id) == (self.known[job_id] not in TERMINAL_STATES)

    @rule(job_id=submitted)
    def preempt(self, job_id: str) -> None:
        with self.database.unit_of_work() as session:
            wishes.request_preemption(session, job_id, reason="x")

    @rule(job_id=submitted)
    def retry(self, job_id: str) -> None:
        is_allowed = self.known[job_id] in (JobState.FAILED, JobState.CANCELLED)
        assert self._ask(wishes.retry, job_id) == is_allowed
        if is_allowed:
            self.known[job_id] = JobState.QUEUED
            self.forgiven[job_id] = jobs.read(self.database, job_id).attempt

    @rule(job_id=submitted)
    def expire(self, job_id: str) -> None:
        if job_id in self.held:
            jobs.let_lease_expire(self.database, job_id)
        ended = jobs.reap(self.database)
        assert ended == ([self.held[job_id]] if job_id in self.held else [])

    @rule(lease=leases)
    def revoke(self, lease: Lease) -> None:
        with self.database.unit_of_work() as session:
            stalled.fail_infrastructure(session, lease, message="thought dead")

    @invariant()
    def jobs_only_move_along_the_table(self) -> None:
        with self.database.read() as session:
            now = {job.id: JobState(job.state) for job in session.scalars(select(Job))}
        assert now.keys() == self.known.keys()  # no job is lost
        for job_id, before in self.known.items():
            assert now[job_id] == before or now[job_id] in TRANSITIONS[before]
            if before in TERMINAL_STATES:
                assert now[job_id] == before
        self.known = now
        self.held = {job_id: lease for job_id, lease in self.held.items() if now[job_id] == JobState.RUNNING}

    @invariant()
    def a_running_job_has_one_open_attempt_and_one_lease(self) -> None:
        with self.database.read() as session:
            for job in session.scalars(select(Job)):
                rows = session.scalars(select(JobAttempt).where(JobAttempt.job_id == job.id)).all()
                open_attempts = [row.number for row in rows if row.finished_at is None]
                is_running = job.state == JobState.RUNNING
                assert open_attempts == ([job.attempt] if is_running else [])
                assert (job.lease_token is not None) == is_running
                assert job.lease_token == (self.held[job.id].token if is_running else None)
                assert sorted(row.number for row in rows) == list(range(1, job.attempt + 1))

    @invariant()
    def no_budget_is_exceeded(self) -> None:
        with self.database.read() as session:
            rows = session.execute(select(JobAttempt.job_id, JobAttempt.number, JobAttempt.outcome)).all()
        outcomes = [(job_id, outcome) for job_id, number, outcome in rows if number > self.forgiven.get(job_id, 0)]
        for kind in (FailureKind.USER, FailureKind.INFRASTRUCTURE):
            for job_id in self.known:
                assert outcomes.count((job_id, kind)) <= BUDGET + 1
        assert all(outcomes.count((job_id, FailureKind.DIVERGED)) <= 1 for job_id in self.known)

    def _ask(self, request: Callable[..., object], job_id: str) -> bool:
        try:
            with self.database.unit_of_work() as session:
                request(session, job_id, actor="bob")
        except InvalidTransitionError:
            return False
        return True

    def _write(self, lease: Lease, write: Callable[[Any], object]) -> bool:
        """A runner's write succeeds exactly if its lease is the live one."""
        is_live = self.held.get(lease.job_id) == lease
        try:
            with self.database.unit_of_work() as session:
                write(session)
        except LeaseLostError:
            assert not is_live
            return False
        assert is_live
        return True


SETTINGS = settings(
    max_examples=25, stateful_step_count=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


def test_any_history__keeps_the_invariants_on_sqlite(migrated_sqlite_file: Path) -> None:
    class OnSqlite(QueueHistory):
        def __init__(self) -> None:
            super().__init__()
            self.folder = tempfile.TemporaryDirectory()
            path = Path(self.folder.name) / "xsam.db"
            shutil.copy(migrated_sqlite_file, path)
            self.database = Database(f"sqlite:///{path}")

        def teardown(self) -> None:
            self.database.dispose()
            self.folder.cleanup()

    run_state_machine_as_test(OnSqlite, settings=SETTINGS)


@pytest.mark.db
def test_any_history__keeps_the_invariants_on_postgresql(postgres_database: Database) -> None:
    class OnPostgresql(QueueHistory):
        database = postgres_database

        def teardown(self) -> None:
            delete_all_rows(self.database)

    run_state_machine_as_test(OnPostgresql, settings=settings(SETTINGS, max_examples=10))
