"""Changing jobs after their submit, on both databases."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.support import jobs, studies
from tests.support.jobs import ALICE, BOB
from xsam.services.cluster import service as cluster
from xsam.services.cluster.service import NodeSeen
from xsam.services.db.session import Database
from xsam.services.errors import InfeasibleError, InvalidRequestError, InvalidTransitionError, NotFoundError
from xsam.services.jobs import bulk, events, queue, verbs, wishes
from xsam.services.jobs.bulk import Selection
from xsam.services.jobs.listing import JobFilter
from xsam.services.jobs.models import Job
from xsam.services.jobs.queue import Lease
from xsam.services.jobs.schemas import JobRead, JobUpdate
from xsam.services.jobs.states import FailureKind, JobState, Wish


def _call(database: Database, verb: Callable[..., Job], job_id: str, *arguments: Any) -> Job:
    with database.unit_of_work() as session:
        return verb(session, job_id, *arguments, actor=BOB)


def _release(database: Database, lease: Lease) -> JobState:
    with database.unit_of_work() as session:
        return queue.release(session, lease, outcome=FailureKind.PREEMPTED, message="state saved")


def _fail(database: Database, lease: Lease, kind: FailureKind = FailureKind.USER) -> None:
    with database.unit_of_work() as session:
        queue.fail(session, lease, kind=kind, message="boom")


def _wish(database: Database, lease: Lease) -> Wish | None:
    with database.read() as session:
        return queue.read_wish(session, lease)


def _last_event(database: Database, job_id: str) -> tuple[str, str]:
    with database.read() as session:
        event = events.list_events(session, job_id)[-1]
    return event.kind, event.actor


class TestPause:
    def test_pause__holds_a_queued_job(self, database: Database) -> None:
        job_id = jobs.submit(database)
        assert _call(database, verbs.pause, job_id).state == JobState.PAUSED
        assert _last_event(database, job_id) == ("paused", "bob")
        assert jobs.try_claim(database, job_id) is None

    def test_pause__asks_a_runner_and_its_release_leaves_the_job_held(self, database: Database) -> None:
        lease = jobs.submit_and_claim(database)
        assert _call(database, verbs.pause, lease.job_id).state == JobState.RUNNING
        assert _last_event(database, lease.job_id) == ("pause_requested", "bob")
        assert _wish(database, lease) is Wish.PAUSE
        assert _release(database, lease) is JobState.PAUSED
        assert jobs.read(database, lease.job_id).wish is None

    def test_pause__again_changes_nothing(self, database: Database) -> None:
        waiting, lease = jobs.submit(database), jobs.submit_and_claim(database)
        for job_id in (waiting, lease.job_id):
            _call(database, verbs.pause, job_id)
            kinds = jobs.event_kinds(database, job_id)
            _call(database, verbs.pause, job_id)
            assert jobs.event_kinds(database, job_id) == kinds

    def test_pause__is_stronger_than_a_preemption_and_weaker_than_a_cancel(self, database: Database) -> None:
        lease = jobs.submit_and_claim(database)
        with database.unit_of_work() as session:
            wishes.request_preemption(session, lease.job_id, reason="others")
        _call(database, verbs.pause, lease.job_id)
        assert _wish(database, lease) is Wish.PAUSE
        _call(database, verbs.cancel, lease.job_id)
        with pytest.raises(InvalidTransitionError, match="being cancelled"):
            _call(database, verbs.pause, lease.job_id)
        assert _release(database, lease) is JobState.CANCELLED

    def test_pause__holds_a_job_whose_attempt_fails_meanwhile(self, database: Database) -> None:
        lease = jobs.submit_and_claim(database)
        _call(database, verbs.pause, lease.job_id)
        _fail(database, lease, FailureKind.INFRASTRUCTURE)
        assert jobs.state(database, lease.job_id) == JobState.PAUSED

    def test_pause__does_not_keep_a_job_from_succeeding(self, database: Database) -> None:
        lease = jobs.submit_and_claim(database)
        _call(database, verbs.pause, lease.job_id)
        with database.unit_of_work() as session:
            queue.complete(session, lease, summary={})
        assert jobs.state(database, lease.job_id) == JobState.SUCCEEDED


class TestResume:
    def test_resume__puts_a_held_job_back_in_the_line(self, database: Database) -> None:
        job_id = jobs.submit(database)
        _call(database, verbs.pause, job_id)
        assert _call(database, verbs.resume, job_id).state == JobState.QUEUED
        assert _last_event(database, job_id) == ("resumed", "bob")
        assert jobs.claim(database, job_id).attempt == 1

    def test_resume__withdraws_the_wish_from_a_running_job(self, database: Database) -> None:
        lease = jobs.submit_and_claim(database)
        _call(database, verbs.pause, lease.job_id)
        assert _call(database, verbs.resume, lease.job_id).state == JobState.RUNNING
        assert _wish(database, lease) is None
        # A runner that had already begun to stop gives the job back to the queue, not to a hold nobody wants.
        assert _release(database, lease) is JobState.QUEUED

    def test_resume__of_a_job_that_is_not_held_changes_nothing(self, database: Database) -> None:
        lease = jobs.submit_and_claim(database)
        _call(database, verbs.cancel, lease.job_id)
        _call(database, verbs.resume, lease.job_id)
        assert _wish(database, lease) is Wish.CANCEL


class TestRetry:
    @pytest.mark.parametrize("is_cancelled", [True, False])
    def test_retry__queues_an_ended_job_with_fresh_budgets(self, database: Database, is_cancelled: bool) -> None:
        lease = jobs.submit_and_claim(database, retry={"user": 1, "first_delay_s": 0.001})
        _fail(database, lease)
        jobs.make_due(database, lease.job_id)
        second = jobs.claim(database, lease.job_id)
        if is_cancelled:
            _call(database, verbs.cancel, lease.job_id)
        _fail(database, second)
        if is_cancelled:
            assert jobs.state(database, lease.job_id) == JobState.FAILED
        job = _call(database, verbs.retry, lease.job_id)
        assert (job.state, job.failure_kind, job.failure_message, job.finished_at, job.ran_s) == (
            "queued",
            None,
            None,
            None,
            0.0,
        )
        assert _last_event(database, lease.job_id) == ("retry_requested", "bob")
        third = jobs.claim(database, lease.job_id)
        assert third.attempt == 3
        _fail(database, third)
        assert jobs.state(database, lease.job_id) == JobState.QUEUED  # the budget of one retry is there again

    def test_retry__of_a_cancelled_job_goes_on_where_it_was(self, database: Database) -> None:
        lease = jobs.submit_and_claim(database)
        with database.unit_of_work() as session:
            queue.touch(session, lease, epochs_done=4)
        _call(database, verbs.cancel, lease.job_id)
        _release(database, lease)
        assert _call(database, verbs.retry, lease.job_id).epochs_done == 4

    def test_retry__refuses_what_the_cluster_can_no_longer_hold(self, database: Database) -> None:
        job_id = jobs.submit(database, resources={"num_workers": 8})
        _call(database, verbs.cancel, job_id)
        with database.unit_of_work() as session:
            nodes = [NodeSeen("n1", "host", num_cpus=4, num_gpus=0)]
            cluster.report_alive(session, "d", nodes=nodes, num_warm_runners=0)
        with pytest.raises(InfeasibleError):
            _call(database, verbs.retry, job_id)
        assert jobs.state(database, job_id) == JobState.CANCELLED


ALLOWED = {
    "cancel": {"queued", "paused", "running", "cancelled"},
    "pause": {"queued", "paused", "running"},
    "resume": {"queued", "paused", "running"},
    "retry": {"failed", "cancelled"},
}


class TestRefusals:
    @pytest.mark.parametrize("state", JobState)
    @pytest.mark.parametrize("verb", ALLOWED)
    def test_verb__is_refused_in_the_wrong_state_and_changes_nothing(
        self, database: Database, verb: str, state: JobState
    ) -> None:
        job_id = _job_in(database, state)
        kinds = jobs.event_kinds(database, job_id)
        if state in ALLOWED[verb]:
            _call(database, getattr(verbs, verb), job_id)
            return
        with pytest.raises(InvalidTransitionError, match=f"job {job_id} is {state}; only"):
            _call(database, getattr(verbs, verb), job_id)
        assert jobs.state(database, job_id) == state
        assert jobs.event_kinds(database, job_id) == kinds

    @pytest.mark.parametrize("verb", [*ALLOWED, "update"])
    def test_verb__on_an_unknown_job_is_not_found(self, database: Database, verb: str) -> None:
        more = [JobUpdate(priority=1)] if verb == "update" else []
        with pytest.raises(NotFoundError):
            _call(database, getattr(verbs, verb), "nosuchjob", *more)


def _job_in(database: Database, state: JobState) -> str:
    job_id = jobs.submit(database)
    if state is JobState.PAUSED:
        _call(database, verbs.pause, job_id)
    elif state is JobState.CANCELLED:
        _call(database, verbs.cancel, job_id)
    elif state is not JobState.QUEUED:
        lease = jobs.claim(database, job_id)
        if state is JobState.SUCCEEDED:
            with database.unit_of_work() as session:
                queue.complete(session, lease, summary={})
        elif state is JobState.FAILED:
            _fail(database, lease)
    assert jobs.state(database, job_id) == state
    return job_id


class TestUpdate:
    @pytest.mark.parametrize("state", [JobState.QUEUED, JobState.RUNNING, JobState.PAUSED])
    def test_update__changes_priority_and_labels(self, database: Database, state: JobState) -> None:
        job_id = _job_in(database, state)
        change = JobUpdate(priority=7, labels={"a": "1", "b": "2"})
        job = _call(database, verbs.update, job_id, change)
        assert (job.priority, job.labels) == (7, {"a": "1", "b": "2"})
        assert jobs.event_kinds(database, job_id)[-2:] == ["labels_changed", "priority_changed"]
        assert _last_event(database, job_id)[1] == "bob"

    def test_update__merges_labels_and_null_removes_one(self, database: Database) -> None:
        job_id = jobs.submit(database, labels={"a": "1", "b": "2"})
        job = _call(database, verbs.update, job_id, JobUpdate(labels={"a": None, "c": "3"}))
        assert job.labels == {"b": "2", "c": "3"}

    def test_update__without_effect_leaves_no_event(self, database: Database) -> None:
        job_id = jobs.submit(database, labels={"a": "1"})
        _call(database, verbs.update, job_id, JobUpdate(priority=0, labels={"a": "1", "b": None}))
        assert jobs.event_kinds(database, job_id) == ["submitted"]

    def test_update__of_an_ended_job_takes_labels_only(self, database: Database) -> None:
        job_id = _job_in(database, JobState.SUCCEEDED)
        assert _call(database, verbs.update, job_id, JobUpdate(labels={"kept": "yes"})).labels == {"kept": "yes"}
        with pytest.raises(InvalidTransitionError, match="priority"):
            _call(database, verbs.update, job_id, JobUpdate(labels={"x": "y"}, priority=1))
        assert jobs.read(database, job_id).labels == {"kept": "yes"}  # all of a call, or nothing

    def test_update__refuses_more_labels_than_a_submit_may_have(self, database: Database) -> None:
        job_id = jobs.submit(database, labels={str(n): "" for n in range(60)})
        with pytest.raises(InvalidRequestError, match="65 labels") as caught:
            _call(database, verbs.update, job_id, JobUpdate(labels={f"new{n}": "" for n in range(5)}))
        assert caught.value.field == "labels"

    @pytest.mark.parametrize("document", [{"priority": 101}, {"labels": {"": "x"}}, {"state": "queued"}, {"epochs": 3}])
    def test_job_update__refuses_other_fields_and_wrong_values(self, document: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            JobUpdate.model_validate(document)


_JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=3), lambda inner: st.dictionaries(st.text(max_size=2), inner)
)


class TestClone:
    def _clone(self, database: Database, job_id: str, changes: dict[str, Any], **options: Any) -> Job:
        with database.unit_of_work() as session:
            return verbs.clone(session, job_id, changes, actor=BOB, **options)[0]

    def test_clone__copies_the_specification_and_the_present_priority_and_labels(self, database: Database) -> None:
        job_id = jobs.submit(database, epochs=7, labels={"a": "1"})
        _call(database, verbs.update, job_id, JobUpdate(priority=5, labels={"b": "2"}))
        clone = self._clone(database, job_id, {})
        assert clone.id != job_id
        assert (clone.num_epochs, clone.priority, clone.labels, clone.team, clone.submitted_by) == (
            7,
            5,
            {"a": "1", "b": "2"},
            "blue",
            "bob",
        )
        with database.read() as session:
            [event] = events.list_events(session, clone.id)
        assert event.data == {"cloned_from": job_id}

    def test_clone__applies_a_merge_patch(self, database: Database) -> None:
        job_id = jobs.submit(database, name="first", optimizer={"variant": "sam", "rho": 0.05, "base": {"name": "sgd"}})
        clone = self._clone(database, job_id, {"optimizer": {"rho": 0.2}, "name": None, "epochs": 2})
        spec = JobRead.of(clone).spec
        assert (spec.optimizer.variant, spec.optimizer.rho, spec.name, spec.epochs) == ("sam", 0.2, None, 2)

    @pytest.mark.parametrize(
        ("changes", "field"),
        [({"epochs": 0}, "epochs"), ({"nonsense": 1}, "nonsense"), ({"resources": {"num_workers": 3}}, "batch_size")],
    )
    def test_clone__checks_the_result_as_a_whole(self, database: Database, changes: dict[str, Any], field: str) -> None:
        job_id = jobs.submit(database)
        with pytest.raises(InvalidRequestError) as caught:
            self._clone(database, job_id, changes)
        assert caught.value.field == f"changes.{field}"
        assert jobs.count(database, "jobs") == 1

    def test_clone__with_an_idempotency_key_is_made_once(self, database: Database) -> None:
        job_id = jobs.submit(database)
        first, second = (self._clone(database, job_id, {}, idempotency_key="k") for _ in range(2))
        assert first.id == second.id

    @given(
        st.recursive(st.none() | st.integers() | st.text(max_size=3), lambda x: st.dictionaries(st.text(max_size=2), x))
    )
    def test_merge_patch__leaves_no_null_and_is_idempotent(self, patch: Any) -> None:
        target = {"a": {"b": 1}, "c": [1, 2]}
        once = verbs.merge_patch(target, patch)
        assert verbs.merge_patch(once, patch) == once
        assert target == {"a": {"b": 1}, "c": [1, 2]}


class TestBulk:
    def test_bulk__gives_each_job_its_own_result(self, database: Database) -> None:
        waiting, done = jobs.submit(database), _job_in(database, JobState.SUCCEEDED)
        with database.unit_of_work() as session:
            answer = bulk.cancel(session, Selection(ids=[done, "nosuchjob", waiting, waiting]), actor=BOB)
        assert [(item.job_id, item.is_done, item.state, item.code) for item in answer.items] == [
            (done, False, "succeeded", "invalid_transition"),
            ("nosuchjob", False, None, "not_found"),
            (waiting, True, "cancelled", None),
        ]
        assert jobs.state(database, waiting) == JobState.CANCELLED

    def test_bulk__by_filter_takes_what_matches(self, database: Database) -> None:
        mine = [jobs.submit(database, labels={"sweep": "7"}) for _ in range(3)]
        other = jobs.submit(database)
        where = JobFilter(labels={"sweep": "7"}, states=[JobState.QUEUED])
        with database.unit_of_work() as session:
            answer = bulk.pause(session, Selection(where=where), actor=ALICE)
        assert sorted(item.job_id for item in answer.items) == sorted(mine)
        assert not answer.has_more
        assert {jobs.state(database, job_id) for job_id in mine} == {JobState.PAUSED}
        assert jobs.state(database, other) == JobState.QUEUED

    def test_bulk__undoes_the_half_of_a_change_that_was_refused(self, database: Database) -> None:
        done = _job_in(database, JobState.SUCCEEDED)
        with database.unit_of_work() as session:
            change = JobUpdate(priority=1, labels={"x": "y"})
            [item] = bulk.update(session, Selection(ids=[done]), change, actor=BOB).items
        assert (item.is_done, item.code) == (False, "invalid_transition")
        assert jobs.read(database, done).labels == {}

    def test_bulk__says_when_more_match_than_one_call_changes(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(bulk, "MAX_JOBS", 2)
        for _ in range(3):
            jobs.submit(database)
        with database.unit_of_work() as session:
            answer = bulk.cancel(session, Selection(where=JobFilter(states=[JobState.QUEUED])), actor=BOB)
            assert (len(answer.items), answer.has_more) == (2, True)
            answer = bulk.cancel(session, Selection(where=JobFilter(states=[JobState.QUEUED])), actor=BOB)
            assert (len(answer.items), answer.has_more) == (1, False)

    def test_bulk__knows_nothing_of_other_teams_jobs(self, database: Database) -> None:
        mine, theirs = jobs.submit(database, actor=BOB), jobs.submit(database, actor=ALICE)
        with database.unit_of_work() as session:
            by_id = bulk.cancel(session, Selection(ids=[theirs], visible_team="blue"), actor=BOB)
            by_filter = bulk.pause(session, Selection(visible_team="blue"), actor=BOB)
        assert [(item.code, item.state) for item in by_id.items] == [("not_found", None)]
        assert [item.job_id for item in by_filter.items] == [mine]
        assert jobs.state(database, theirs) == JobState.QUEUED

    def test_bulk__tells_of_another_teams_study_what_it_tells_of_nothing(self, database: Database) -> None:
        ids = [studies.submit(database, actor=ALICE), studies.submit(database, actor=BOB), "nosuchstudy"]
        with database.unit_of_work() as session:
            theirs, mine, none = bulk.cancel(session, Selection(ids=ids, visible_team="blue"), actor=BOB).items
        assert (theirs.code, theirs.message) == ("not_found", f"no job {ids[0]}")
        assert (none.code, none.message) == ("not_found", f"no job {ids[2]}")
        assert mine.message is not None
        assert "is a study" in mine.message

    @pytest.mark.parametrize("verb", ["resume", "retry"])
    def test_bulk__has_every_verb(self, database: Database, verb: str) -> None:
        before = {"resume": JobState.PAUSED, "retry": JobState.FAILED}[verb]
        ids = [_job_in(database, before) for _ in range(2)]
        with database.unit_of_work() as session:
            answer = getattr(bulk, verb)(session, Selection(ids=ids), actor=BOB)
        assert [item.state for item in answer.items] == [JobState.QUEUED, JobState.QUEUED]
