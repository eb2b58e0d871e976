"""Nothing stays as it is for ever: each rule of the reaper, with time moved in SQL."""

from dataclasses import replace

import pytest

from tests.support import jobs
from tests.support.jobs import PATIENCE
from xsam.services.db.clock import db_now
from xsam.services.db.session import Database
from xsam.services.errors import LeaseLostError
from xsam.services.jobs import queue, stalled, wishes
from xsam.services.jobs.queue import Lease
from xsam.services.jobs.states import FailureKind, JobState


def _release(database: Database, lease: Lease) -> JobState:
    with database.unit_of_work() as session:
        return queue.release(session, lease, outcome=FailureKind.PREEMPTED, message="state saved")


def _failure(database: Database, job_id: str) -> tuple[str, str | None, str]:
    job = jobs.read(database, job_id)
    return job.state, job.failure_kind, job.failure_message or ""


def test_reap__of_a_healthy_queue_finds_nothing(database: Database) -> None:
    jobs.submit(database)
    jobs.submit_and_claim(database, limits={"max_run_s": 60, "max_queue_s": 60})
    with database.read() as session:
        assert not stalled.has_due(session, PATIENCE)
    with database.unit_of_work() as session:
        assert stalled.reap(session, PATIENCE) == []
    assert jobs.count(database, "job_events") == 3


class TestLeases:
    def test_reap__takes_back_only_expired_leases(self, database: Database) -> None:
        dead, alive = jobs.submit_and_claim(database), jobs.submit_and_claim(database)
        jobs.let_lease_expire(database, dead.job_id)
        assert jobs.reap(database) == [dead]
        assert jobs.state(database, dead.job_id) == JobState.QUEUED
        assert jobs.state(database, alive.job_id) == JobState.RUNNING
        assert jobs.attempts(database, dead.job_id)[0].outcome == FailureKind.INFRASTRUCTURE

    def test_reap__takes_no_more_than_its_limit(self, database: Database) -> None:
        for _ in range(3):
            jobs.let_lease_expire(database, jobs.submit_and_claim(database).job_id)
        assert len(jobs.reap(database, limit=2)) == 2
        assert len(jobs.reap(database, limit=2)) == 1


class TestWishes:
    def test_reap__takes_back_a_job_whose_runner_does_not_stop(self, database: Database) -> None:
        lease, other = jobs.submit_and_claim(database), jobs.submit_and_claim(database)
        for one in (lease, other):
            with database.unit_of_work() as session:
                wishes.request_cancel(session, one.job_id, actor="bob")
        assert jobs.reap(database) == []
        jobs.set_columns(database, lease.job_id, wish_at=db_now(-PATIENCE.stop_s - 1))
        assert jobs.reap(database) == [lease]
        assert jobs.state(database, lease.job_id) == JobState.CANCELLED
        assert jobs.state(database, other.job_id) == JobState.RUNNING
        with pytest.raises(LeaseLostError), database.unit_of_work() as session:
            queue.renew_lease(session, lease, lease_s=60)

    def test_reap__holds_a_job_that_had_to_be_forced_to_pause(self, database: Database) -> None:
        lease = jobs.submit_and_claim(database)
        with database.unit_of_work() as session:
            wishes.request_pause(session, lease.job_id, actor="bob")
        jobs.set_columns(database, lease.job_id, wish_at=db_now(-PATIENCE.stop_s - 1))
        assert jobs.reap(database) == [lease]
        assert jobs.state(database, lease.job_id) == JobState.PAUSED


class TestRunningTime:
    def test_claim__sets_the_deadline_by_what_is_left(self, database: Database) -> None:
        lease = jobs.submit_and_claim(database, limits={"max_run_s": 100})
        jobs.shift_attempt(database, lease, started_s_ago=30)
        assert _release(database, lease) is JobState.QUEUED
        assert jobs.read(database, lease.job_id).ran_s == pytest.approx(30, abs=5)
        jobs.claim(database, lease.job_id)
        job = jobs.read(database, lease.job_id)
        assert job.deadline_at is not None
        assert (job.deadline_at - job.state_since).total_seconds() == pytest.approx(70, abs=5)

    def test_reap__asks_a_job_over_its_limit_to_save_its_state_and_it_ends_timed_out(self, database: Database) -> None:
        lease = jobs.submit_and_claim(database, limits={"max_run_s": 100})
        jobs.shift_attempt(database, lease, started_s_ago=101)
        jobs.set_columns(database, lease.job_id, deadline_at=db_now(-1))
        assert jobs.reap(database) == []
        assert jobs.read(database, lease.job_id).wish == "preempt"
        assert _release(database, lease) is JobState.FAILED
        state, kind, message = _failure(database, lease.job_id)
        assert (state, kind) == ("failed", "timed_out")
        assert "limits.max_run_s of 100 s" in message
        assert jobs.attempts(database, lease.job_id)[0].outcome == "timed_out"

    def test_running_time__that_is_used_up_ends_a_job_whoever_gives_it_back(self, database: Database) -> None:
        for end in (
            lambda session, lease: queue.revoke(session, lease, message="died"),
            lambda session, lease: queue.fail(session, lease, kind=FailureKind.INFRASTRUCTURE, message="x"),
        ):
            lease = jobs.submit_and_claim(database, limits={"max_run_s": 100})
            jobs.shift_attempt(database, lease, started_s_ago=101)
            with database.unit_of_work() as session:
                end(session, lease)
            assert _failure(database, lease.job_id)[:2] == ("failed", "timed_out")

    def test_running_time__granted_again_by_the_policy_starts_anew(self, database: Database) -> None:
        lease = jobs.submit_and_claim(database, limits={"max_run_s": 100}, retry={"timed_out": 1})
        jobs.shift_attempt(database, lease, started_s_ago=101)
        assert _release(database, lease) is JobState.QUEUED
        assert jobs.read(database, lease.job_id).ran_s == 0
        jobs.make_due(database, lease.job_id)
        second = jobs.claim(database, lease.job_id)
        jobs.shift_attempt(database, second, started_s_ago=101)
        assert _release(database, second) is JobState.FAILED

    def test_reap__limits_jobs_that_set_none_by_the_operators_patience(self, database: Database) -> None:
        lease = jobs.submit_and_claim(database)
        long_s = PATIENCE.run_s + 1
        jobs.shift_attempt(database, lease, started_s_ago=long_s)
        jobs.set_columns(database, lease.job_id, state_since=db_now(-long_s))
        jobs.reap(database)
        assert jobs.read(database, lease.job_id).wish == "preempt"
        assert _release(database, lease) is JobState.FAILED
        assert jobs.read(database, lease.job_id).failure_kind == "timed_out"

    def test_postponed_attempts__cost_no_running_time(self, database: Database) -> None:
        lease = jobs.submit_and_claim(database, limits={"max_run_s": 100})
        jobs.shift_attempt(database, lease, started_s_ago=40)
        with database.unit_of_work() as session:
            queue.postpone(session, lease, delay_s=1, message="no room")
        assert jobs.read(database, lease.job_id).ran_s == 0


class TestSilence:
    def test_reap__asks_a_job_without_progress_to_come_back(self, database: Database) -> None:
        silent, busy = jobs.submit_and_claim(database), jobs.submit_and_claim(database)
        for lease in (silent, busy):
            jobs.set_columns(database, lease.job_id, reported_at=db_now(-PATIENCE.silence_s - 1))
        with database.unit_of_work() as session:
            queue.merge_progress(session, busy, {"step": 1})
            queue.renew_lease(session, silent, lease_s=60)  # a runner that lives is no progress
        jobs.reap(database)
        assert jobs.read(database, silent.job_id).wish == "preempt"
        assert jobs.read(database, busy.job_id).wish is None

    def test_reap__asks_once(self, database: Database) -> None:
        lease = jobs.submit_and_claim(database)
        jobs.set_columns(database, lease.job_id, reported_at=db_now(-PATIENCE.silence_s - 1))
        for _ in range(2):
            jobs.reap(database)
        assert jobs.event_kinds(database, lease.job_id).count("preempting") == 1


class TestWaiting:
    def test_reap__fails_a_job_that_waits_longer_than_it_allows(self, database: Database) -> None:
        job_id = jobs.submit(database, limits={"max_queue_s": 60})
        job = jobs.read(database, job_id)
        assert job.deadline_at is not None
        assert (job.deadline_at - job.created_at).total_seconds() == pytest.approx(60, abs=5)
        jobs.set_columns(database, job_id, deadline_at=db_now(-1))
        jobs.reap(database)
        state, kind, message = _failure(database, job_id)
        assert (state, kind) == ("failed", "timed_out")
        assert "limits.max_queue_s of 60 s" in message

    def test_max_queue_s__counts_anew_after_each_attempt_and_not_during_back_off(self, database: Database) -> None:
        lease = jobs.submit_and_claim(database, limits={"max_queue_s": 60})
        with database.unit_of_work() as session:
            queue.postpone(session, lease, delay_s=500, message="no room")
        job = jobs.read(database, lease.job_id)
        assert job.deadline_at is not None
        assert (job.deadline_at - job.scheduled_at).total_seconds() == pytest.approx(60, abs=5)

    def test_max_queue_s__does_not_count_while_paused_or_running(self, database: Database) -> None:
        job_id = jobs.submit(database, limits={"max_queue_s": 60})
        with database.unit_of_work() as session:
            wishes.request_pause(session, job_id, actor="bob")
        assert jobs.read(database, job_id).deadline_at is None
        with database.unit_of_work() as session:
            wishes.resume(session, job_id, actor="bob")
        assert jobs.read(database, job_id).deadline_at is not None
        jobs.claim(database, job_id)
        assert jobs.read(database, job_id).deadline_at is None

    @pytest.mark.parametrize("is_paused", [True, False])
    def test_reap__fails_jobs_that_were_forgotten(self, database: Database, is_paused: bool) -> None:
        job_id, other = jobs.submit(database), jobs.submit(database)
        if is_paused:
            with database.unit_of_work() as session:
                wishes.request_pause(session, job_id, actor="bob")
        patience = replace(PATIENCE, queue_s=1000, pause_s=1000)
        jobs.set_columns(database, job_id, state_since=db_now(-1001))
        jobs.reap(database, patience)
        assert _failure(database, job_id)[:2] == ("failed", "timed_out")
        assert jobs.state(database, other) == JobState.QUEUED
