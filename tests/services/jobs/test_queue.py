"""The queue's contract, on SQLite and on PostgreSQL."""

from collections.abc import Callable

import pytest

from tests.support import jobs
from xsam.services.db.session import Database
from xsam.services.errors import InvalidTransitionError, LeaseLostError, NotFoundError
from xsam.services.jobs import attempts, queue, stalled, wishes
from xsam.services.jobs.models import Job
from xsam.services.jobs.queue import Lease
from xsam.services.jobs.retry import RetryDecision
from xsam.services.jobs.states import TERMINAL_STATES, FailureKind, JobState, Wish

RETRY = RetryDecision(True, 30.0, "again")
GIVE_UP = RetryDecision(False, 0.0, "enough")
SUMMARY = {"epochs": 1}


def _complete(database: Database, lease: Lease) -> None:
    with database.unit_of_work() as session:
        queue.complete(session, lease, summary=SUMMARY)


def _fail(database: Database, lease: Lease, decision: RetryDecision = GIVE_UP) -> None:
    with database.unit_of_work() as session:
        queue.fail(session, lease, kind=FailureKind.USER, message="boom", decision=decision, traceback="Traceback")


def _renew(database: Database, lease: Lease) -> Wish | None:
    with database.unit_of_work() as session:
        return queue.renew_lease(session, lease, lease_s=60)


def _cancel(database: Database, job_id: str) -> JobState:
    with database.unit_of_work() as session:
        return wishes.request_cancel(session, job_id, actor="bob")


def _write(name: str, **options: object) -> Callable[[Database, Lease], None]:
    def write(database: Database, lease: Lease) -> None:
        with database.unit_of_work() as session:
            getattr(queue, name)(session, lease, **options)

    return write


RUNNER_WRITES = {
    "renew_lease": _write("renew_lease", lease_s=60),
    "touch": _write("touch", epochs_done=1),
    "merge_progress": _write("merge_progress", position={"step": 1}),
    "read_wish": _write("read_wish"),
    "complete": _complete,
    "fail": _fail,
    "finish_cancelled": _write("finish_cancelled"),
    "release": _write("release", outcome=FailureKind.PREEMPTED, message="made room"),
    "postpone": _write("postpone", delay_s=1, message="no room"),
}
ENDINGS = ("complete", "fail", "finish_cancelled", "release", "postpone")


class TestClaim:
    def test_claim__starts_the_first_attempt(self, database: Database) -> None:
        job_id = jobs.submit(database, epochs=2)
        claimed = jobs.try_claim(database, job_id)
        assert claimed is not None
        assert (claimed.lease.job_id, claimed.lease.attempt, claimed.job_spec.epochs) == (job_id, 1, 2)
        job = jobs.read(database, job_id)
        assert (job.state, job.lease_token, job.placement) == ("running", claimed.lease.token, ["node-1"])
        assert job.started_at is not None
        [attempt] = jobs.attempts(database, job_id)
        assert (attempt.number, attempt.runner, attempt.finished_at) == (1, "runner-1", None)

    def test_claim__skips_job_with_live_lease(self, database: Database) -> None:
        lease = jobs.submit_and_claim(database)
        assert jobs.try_claim(database, lease.job_id) is None

    def test_claim__skips_job_whose_lease_expired_until_it_was_taken_back(self, database: Database) -> None:
        lease = jobs.submit_and_claim(database)
        jobs.let_lease_expire(database, lease.job_id)
        assert jobs.try_claim(database, lease.job_id) is None

    def test_claim__skips_job_that_is_not_due(self, database: Database) -> None:
        lease = jobs.submit_and_claim(database)
        _fail(database, lease, RETRY)
        assert jobs.try_claim(database, lease.job_id) is None
        jobs.make_due(database, lease.job_id)
        assert jobs.claim(database, lease.job_id).attempt == 2

    def test_claim__of_unknown_job_is_none(self, database: Database) -> None:
        assert jobs.try_claim(database, "nosuchjob") is None

    def test_claim__keeps_the_start_of_the_first_attempt(self, database: Database) -> None:
        lease = jobs.submit_and_claim(database)
        first = jobs.read(database, lease.job_id).started_at
        RUNNER_WRITES["release"](database, lease)
        jobs.claim(database, lease.job_id)
        assert jobs.read(database, lease.job_id).started_at == first

    def test_claim__of_a_specification_that_this_version_cannot_read_fails_the_job(self, database: Database) -> None:
        job_id = jobs.submit(database)
        with database.unit_of_work() as session:
            session.get_one(Job, job_id).spec = {"epochs": 0}
        with database.unit_of_work() as session:
            assert queue.claim(session, job_id, runner="r", lease_s=60) is None
        (attempt,) = jobs.attempts(database, job_id)
        assert (jobs.state(database, job_id), attempt.outcome) == (JobState.FAILED, FailureKind.USER)
        assert "not valid for this version" in (attempt.message or "")

    def test_claim__rolled_back_leaves_the_job_queued(self, database: Database) -> None:
        job_id = jobs.submit(database)
        with database.unit_of_work() as session:
            assert queue.claim(session, job_id, runner="r", lease_s=60) is not None
            session.rollback()
        assert jobs.state(database, job_id) == JobState.QUEUED
        assert jobs.attempts(database, job_id) == []


class TestFencing:
    @pytest.mark.parametrize("name", RUNNER_WRITES)
    def test_write__with_live_lease_is_accepted(self, database: Database, name: str) -> None:
        RUNNER_WRITES[name](database, jobs.submit_and_claim(database))

    @pytest.mark.parametrize("name", RUNNER_WRITES)
    def test_write__after_expiry_is_refused_and_changes_nothing(self, database: Database, name: str) -> None:
        lease = jobs.submit_and_claim(database)
        jobs.let_lease_expire(database, lease.job_id)
        before = jobs.read(database, lease.job_id)
        with pytest.raises(LeaseLostError):
            RUNNER_WRITES[name](database, lease)
        after = jobs.read(database, lease.job_id)
        assert (after.state, after.lease_expires_at, after.epochs_done, after.progress) == (
            before.state,
            before.lease_expires_at,
            before.epochs_done,
            before.progress,
        )

    @pytest.mark.parametrize("name", RUNNER_WRITES)
    def test_write__of_an_earlier_attempt_is_refused(self, database: Database, name: str) -> None:
        first = jobs.submit_and_claim(database)
        RUNNER_WRITES["release"](database, first)
        second = jobs.claim(database, first.job_id)
        with pytest.raises(LeaseLostError):
            RUNNER_WRITES[name](database, first)
        assert _renew(database, second) is None

    @pytest.mark.parametrize("ending", ENDINGS)
    @pytest.mark.parametrize("name", RUNNER_WRITES)
    def test_write__after_the_end_is_refused(self, database: Database, ending: str, name: str) -> None:
        lease = jobs.submit_and_claim(database)
        RUNNER_WRITES[ending](database, lease)
        state = jobs.state(database, lease.job_id)
        with pytest.raises(LeaseLostError):
            RUNNER_WRITES[name](database, lease)
        assert jobs.state(database, lease.job_id) == state

    def test_renew_lease__lets_a_write_through_past_the_first_expiry(self, database: Database) -> None:
        lease = jobs.submit_and_claim(database)
        before = jobs.read(database, lease.job_id).lease_expires_at
        with database.unit_of_work() as session:
            queue.renew_lease(session, lease, lease_s=3600)
        after = jobs.read(database, lease.job_id).lease_expires_at
        assert before is not None
        assert after is not None
        assert (after - before).total_seconds() > 3000


class TestEndings:
    def test_complete__stores_the_summary_and_gives_everything_back(self, database: Database) -> None:
        lease = jobs.submit_and_claim(database)
        _complete(database, lease)
        job = jobs.read(database, lease.job_id)
        assert (job.state, job.summary, job.lease_token, job.runner, job.placement) == (
            "succeeded",
            SUMMARY,
            None,
            None,
            None,
        )
        assert job.finished_at is not None
        assert jobs.attempts(database, lease.job_id)[0].outcome == "succeeded"
        assert jobs.event_kinds(database, lease.job_id) == ["submitted", "started", "succeeded"]

    def test_fail__with_retry_queues_again_after_the_delay(self, database: Database) -> None:
        lease = jobs.submit_and_claim(database)
        _fail(database, lease, RETRY)
        job = jobs.read(database, lease.job_id)
        assert (job.state, job.failure_kind, job.finished_at) == ("queued", None, None)
        assert (job.scheduled_at - job.created_at).total_seconds() > 25
        assert jobs.attempts(database, lease.job_id)[0].traceback == "Traceback"

    def test_fail__without_retry_keeps_kind_message_and_traceback(self, database: Database) -> None:
        lease = jobs.submit_and_claim(database)
        _fail(database, lease)
        job = jobs.read(database, lease.job_id)
        assert (job.state, job.failure_kind, job.failure_message) == ("failed", "user", "boom")
        [attempt] = jobs.attempts(database, lease.job_id)
        assert (attempt.outcome, attempt.message, attempt.traceback) == ("user", "boom", "Traceback")

    def test_release__gives_the_job_back_at_once(self, database: Database) -> None:
        lease = jobs.submit_and_claim(database)
        RUNNER_WRITES["release"](database, lease)
        assert jobs.state(database, lease.job_id) == JobState.QUEUED
        assert jobs.attempts(database, lease.job_id)[0].outcome == FailureKind.PREEMPTED
        assert jobs.claim(database, lease.job_id).attempt == 2

    def test_postpone__makes_the_job_due_later(self, database: Database) -> None:
        lease = jobs.submit_and_claim(database)
        RUNNER_WRITES["postpone"](database, lease)
        assert jobs.state(database, lease.job_id) == JobState.QUEUED
        assert jobs.attempts(database, lease.job_id)[0].outcome == attempts.NOT_PLACED

    def test_fail_idle__takes_only_queued_jobs(self, database: Database) -> None:
        waiting, running = jobs.submit(database), jobs.submit_and_claim(database).job_id
        with database.unit_of_work() as session:
            kind = FailureKind.INFEASIBLE
            assert queue.fail_idle(session, waiting, kind=kind, message="too large")
            assert not queue.fail_idle(session, running, kind=kind, message="too large")
        assert jobs.read(database, waiting).failure_kind == "infeasible"
        assert jobs.state(database, running) == JobState.RUNNING

    def test_merge_progress__keeps_what_it_does_not_name(self, database: Database) -> None:
        lease = jobs.submit_and_claim(database)
        for position in ({"step": 1, "steps_per_epoch": 9}, {"step": 2}):
            with database.unit_of_work() as session:
                queue.merge_progress(session, lease, position)
        assert jobs.read(database, lease.job_id).progress == {"step": 2, "steps_per_epoch": 9}


class TestRevoke:
    def test_revoke__takes_a_job_with_a_live_lease(self, database: Database) -> None:
        lease = jobs.submit_and_claim(database)
        with database.unit_of_work() as session:
            assert queue.revoke(session, lease, message="process died")
        assert jobs.state(database, lease.job_id) == JobState.QUEUED
        assert jobs.attempts(database, lease.job_id)[0].outcome == FailureKind.INFRASTRUCTURE
        with pytest.raises(LeaseLostError):
            _renew(database, lease)

    def test_revoke__of_an_earlier_attempt_does_nothing(self, database: Database) -> None:
        first = jobs.submit_and_claim(database)
        RUNNER_WRITES["release"](database, first)
        second = jobs.claim(database, first.job_id)
        with database.unit_of_work() as session:
            assert not queue.revoke(session, first, message="process died")
            stalled.fail_infrastructure(session, first, message="process died")
        assert _renew(database, second) is None

    def test_revoke__cancels_a_job_that_somebody_wanted_cancelled(self, database: Database) -> None:
        lease = jobs.submit_and_claim(database, retry={"infrastructure": 0})
        _cancel(database, lease.job_id)
        with database.unit_of_work() as session:
            assert queue.revoke(session, lease, message="process died")
        assert jobs.state(database, lease.job_id) == JobState.CANCELLED

    def test_revoke__fails_a_job_whose_budget_is_used_up(self, database: Database) -> None:
        lease = jobs.submit_and_claim(database, retry={"infrastructure": 0})
        with database.unit_of_work() as session:
            queue.revoke(session, lease, message="process died")
        assert jobs.read(database, lease.job_id).failure_kind == "infrastructure"


class TestCancel:
    def test_request_cancel__ends_a_queued_job_at_once(self, database: Database) -> None:
        job_id = jobs.submit(database)
        assert _cancel(database, job_id) == JobState.CANCELLED
        assert jobs.read(database, job_id).finished_at is not None

    def test_request_cancel__ends_a_paused_job_at_once(self, database: Database) -> None:
        job_id = jobs.submit(database)
        with database.unit_of_work() as session:
            wishes.request_pause(session, job_id, actor="bob")
        assert _cancel(database, job_id) == JobState.CANCELLED

    def test_request_cancel__asks_the_runner_of_a_running_job(self, database: Database) -> None:
        lease = jobs.submit_and_claim(database)
        assert _cancel(database, lease.job_id) == JobState.RUNNING
        assert _renew(database, lease) is Wish.CANCEL
        RUNNER_WRITES["finish_cancelled"](database, lease)
        assert jobs.state(database, lease.job_id) == JobState.CANCELLED

    def test_request_cancel__twice_changes_nothing(self, database: Database) -> None:
        lease = jobs.submit_and_claim(database)
        _cancel(database, lease.job_id)
        asked_at = jobs.read(database, lease.job_id).wish_at
        _cancel(database, lease.job_id)
        assert jobs.read(database, lease.job_id).wish_at == asked_at
        assert jobs.event_kinds(database, lease.job_id).count("cancel_requested") == 1

    def test_request_cancel__overrides_a_preemption(self, database: Database) -> None:
        lease = jobs.submit_and_claim(database)
        with database.unit_of_work() as session:
            assert wishes.request_preemption(session, lease.job_id, reason="other")
        _cancel(database, lease.job_id)
        assert _renew(database, lease) is Wish.CANCEL

    def test_request_cancel__of_a_cancelled_job_is_no_error(self, database: Database) -> None:
        job_id = jobs.submit(database)
        _cancel(database, job_id)
        assert _cancel(database, job_id) == JobState.CANCELLED
        assert jobs.event_kinds(database, job_id).count("cancelled") == 1

    @pytest.mark.parametrize("ending", ["complete", "fail"])
    def test_request_cancel__of_an_ended_job_is_refused(self, database: Database, ending: str) -> None:
        lease = jobs.submit_and_claim(database)
        RUNNER_WRITES[ending](database, lease)
        with pytest.raises(InvalidTransitionError, match="only queued, paused and running"):
            _cancel(database, lease.job_id)

    def test_request_cancel__of_an_unknown_job_is_not_found(self, database: Database) -> None:
        with pytest.raises(NotFoundError):
            _cancel(database, "nosuchjob")


class TestPreemption:
    def test_request_preemption__sets_the_wish_once(self, database: Database) -> None:
        lease = jobs.submit_and_claim(database)
        with database.unit_of_work() as session:
            assert wishes.request_preemption(session, lease.job_id, reason="other")
            assert not wishes.request_preemption(session, lease.job_id, reason="other")
        assert _renew(database, lease) is Wish.PREEMPT

    def test_request_preemption__spares_jobs_that_do_not_run(self, database: Database) -> None:
        job_id = jobs.submit(database)
        with database.unit_of_work() as session:
            assert not wishes.request_preemption(session, job_id, reason="other")

    def test_release__clears_the_wish(self, database: Database) -> None:
        lease = jobs.submit_and_claim(database)
        with database.unit_of_work() as session:
            wishes.request_preemption(session, lease.job_id, reason="other")
        RUNNER_WRITES["release"](database, lease)
        assert _renew(database, jobs.claim(database, lease.job_id)) is None


class TestTerminal:
    @pytest.mark.parametrize("ending", ["complete", "fail", "finish_cancelled"])
    def test_terminal__is_left_by_no_call(self, database: Database, ending: str) -> None:
        lease = jobs.submit_and_claim(database)
        RUNNER_WRITES[ending](database, lease)
        state = jobs.state(database, lease.job_id)
        assert state in TERMINAL_STATES
        assert jobs.try_claim(database, lease.job_id) is None
        with database.unit_of_work() as session:
            assert not queue.revoke(session, lease, message="late")
            assert not queue.fail_idle(session, lease.job_id, kind=FailureKind.INFEASIBLE, message="late")
            assert not wishes.request_preemption(session, lease.job_id, reason="other")
        assert jobs.state(database, lease.job_id) == state

    def test_has_queued__sees_only_due_jobs(self, database: Database) -> None:
        with database.read() as session:
            assert not queue.has_queued(session)
        lease = jobs.submit_and_claim(database)
        RUNNER_WRITES["postpone"](database, lease)
        with database.read() as session:
            assert not queue.has_queued(session)
        jobs.make_due(database, lease.job_id)
        with database.read() as session:
            assert queue.has_queued(session)
