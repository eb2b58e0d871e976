"""The queue under real threads, each with connections of its own."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tests.support import jobs
from xsam.services.db.session import Database
from xsam.services.errors import LeaseLostError
from xsam.services.jobs import queue, wishes
from xsam.services.jobs.states import FailureKind, JobState

NUM_THREADS = 8
_Result = TypeVar("_Result")


def _at_once(calls: list[Callable[[], _Result]]) -> list[_Result]:
    """Run all calls in threads that start together."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], _Result]) -> _Result:
        barrier.wait(timeout=30)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def test_claim__is_won_by_exactly_one_of_many_threads(database: Database) -> None:
    for _ in range(5):
        job_id = jobs.submit(database)
        claims = _at_once([lambda job_id=job_id: jobs.try_claim(database, job_id)] * NUM_THREADS)
        assert sum(claimed is not None for claimed in claims) == 1
        assert len(jobs.attempts(database, job_id)) == 1


def test_claim__gives_every_job_away_once_when_all_want_all(database: Database) -> None:
    job_ids = [jobs.submit(database) for _ in range(12)]

    def take_all() -> list[str]:
        return [job_id for job_id in job_ids if jobs.try_claim(database, job_id) is not None]

    taken = [job_id for ids in _at_once([take_all] * NUM_THREADS) for job_id in ids]
    assert sorted(taken) == sorted(job_ids)


def test_reap__takes_a_job_back_once(database: Database) -> None:
    leases = [jobs.submit_and_claim(database) for _ in range(4)]
    for lease in leases:
        jobs.let_lease_expire(database, lease.job_id)

    expired = [lease for found in _at_once([lambda: jobs.reap(database)] * 4) for lease in found]
    assert sorted(lease.job_id for lease in expired) == sorted(lease.job_id for lease in leases)
    for lease in leases:
        assert jobs.event_kinds(database, lease.job_id).count("retried") == 1


def test_complete__and_revoke_at_once_end_the_attempt_once(database: Database) -> None:
    for _ in range(6):
        lease = jobs.submit_and_claim(database)

        def complete(lease: queue.Lease = lease) -> bool:
            try:
                with database.unit_of_work() as session:
                    queue.complete(session, lease, summary={})
                return True
            except LeaseLostError:
                return False

        def revoke(lease: queue.Lease = lease) -> bool:
            with database.unit_of_work() as session:
                return queue.revoke(session, lease, message="thought dead")

        completed, revoked = _at_once([complete, revoke])
        assert completed != revoked
        assert jobs.state(database, lease.job_id) == (JobState.SUCCEEDED if completed else JobState.QUEUED)
        [attempt] = jobs.attempts(database, lease.job_id)
        assert attempt.outcome == ("succeeded" if completed else FailureKind.INFRASTRUCTURE)


def test_request_cancel__and_claim_at_once_lose_no_wish(database: Database) -> None:
    """Whoever is first, the job ends cancelled or its runner is asked to stop: it never runs on unasked."""
    for _ in range(6):
        job_id = jobs.submit(database)

        def cancel(job_id: str = job_id) -> None:
            with database.unit_of_work() as session:
                wishes.request_cancel(session, job_id, actor="bob")

        def claim(job_id: str = job_id) -> None:
            jobs.try_claim(database, job_id)

        _at_once([cancel, claim])
        job = jobs.read(database, job_id)
        assert job.state == JobState.CANCELLED or job.wish == "cancel"
