"""Why jobs wait, and the queue, from the published decision; on both databases."""

import pytest
from sqlalchemy import update

from tests.support import jobs, planning
from tests.support.jobs import ALICE, BOB
from xsam.services.cluster.models import Dispatcher
from xsam.services.cluster.service import NodeSeen
from xsam.services.db.clock import db_now
from xsam.services.db.session import Database
from xsam.services.errors import NotFoundError
from xsam.services.jobs import queue, wishes
from xsam.services.jobs.states import FailureKind, JobState
from xsam.services.reports import why
from xsam.services.reports.schemas import QueueRead, WhyRead
from xsam.services.scheduling import last_decision

NODE = NodeSeen("n1", "10.0.0.1", num_cpus=4, num_gpus=0)
WHOLE_NODE = {"cpus_per_worker": 4}


def _why(database: Database, job_id: str) -> WhyRead:
    with database.read() as session:
        return why.explain(session, job_id)


def _queue(database: Database, **options: object) -> QueueRead:
    with database.read() as session:
        return why.queue(session, **options)


class TestQueuedJobs:
    def test_explain__names_what_is_missing_who_holds_it_and_the_place_in_the_line(self, database: Database) -> None:
        nodes = planning.report_nodes(database, NODE)
        running = jobs.submit(database, resources=WHOLE_NODE)
        planning.decide(database, nodes)
        first = jobs.submit(database, actor=BOB, resources=WHOLE_NODE)
        second = jobs.submit(database, resources=WHOLE_NODE)
        planning.decide(database, nodes)
        answer = _why(database, second)
        assert (answer.code, answer.position, answer.num_in_line) == ("insufficient_resources", 2, 2)
        assert answer.shortage is not None
        assert (answer.shortage.cpus, answer.shortage.total_cpus) == (4, 4)
        assert [(held.team, held.cpus) for held in answer.holdings] == [("red", 4)]
        assert answer.blocking_job_ids == [running]
        assert answer.standing is not None
        assert answer.standing.holding.team == "red"
        assert "team red 4 CPUs" in answer.sentence
        assert _why(database, first).position == 1

    def test_explain__names_of_other_teams_jobs_only_whose_they_are(self, database: Database) -> None:
        nodes = planning.report_nodes(database, NODE)
        running = jobs.submit(database, resources={"cpus_per_worker": 3})
        planning.decide(database, nodes)
        ahead = jobs.submit(database, actor=BOB, resources=WHOLE_NODE, priority=5)
        waiting = jobs.submit(database, resources={"cpus_per_worker": 1})
        planning.decide(database, nodes)
        assert ahead in _why(database, waiting).sentence
        with database.read() as session:
            answer = why.explain(session, waiting, visible_team=ALICE.team)
            own = why.explain(session, ahead, visible_team=BOB.team)
        assert ahead not in answer.model_dump_json()
        assert "kept for job (of team blue)" in answer.sentence
        assert running not in own.model_dump_json()

    def test_explain__beyond_the_exact_head_takes_the_reason_of_like_jobs_and_the_own_place(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(last_decision, "NUM_EXACT", 1)
        monkeypatch.setattr(last_decision, "LINE_LENGTH", 3)
        nodes = planning.report_nodes(database, NODE)
        jobs.submit(database, resources=WHOLE_NODE)
        planning.decide(database, nodes)
        waiting = [jobs.submit(database, resources=WHOLE_NODE) for _ in range(5)]
        planning.decide(database, nodes)
        answers = [_why(database, job_id) for job_id in waiting]
        assert {answer.code for answer in answers} == {"insufficient_resources"}
        assert [answer.position for answer in answers] == [1, 2, 3, None, None]
        assert [answer.num_in_line for answer in answers] == [5] * 5
        assert [answer.job_id for answer in answers] == waiting

    def test_explain__of_a_job_in_back_off_says_until_when(self, database: Database) -> None:
        lease = jobs.submit_and_claim(database)
        with database.unit_of_work() as session:
            queue.postpone(session, lease, delay_s=500, message="no room")
        answer = _why(database, lease.job_id)
        assert answer.code == "not_yet_eligible"
        assert answer.eligible_at == jobs.read(database, lease.job_id).scheduled_at

    def test_explain__without_a_dispatcher_says_so(self, database: Database) -> None:
        job_id = jobs.submit(database)
        assert _why(database, job_id).code == why.NO_DISPATCHER
        nodes = planning.report_nodes(database, NODE)
        jobs.submit(database, resources=WHOLE_NODE)
        planning.decide(database, nodes)
        waiting = jobs.submit(database)
        with database.unit_of_work() as session:
            session.execute(update(Dispatcher).values(seen_at=db_now(-3600)))
        answer = _why(database, waiting)
        assert answer.code == why.NO_DISPATCHER
        assert answer.as_of is not None

    def test_explain__of_a_job_the_scheduler_has_not_seen_does_not_guess(self, database: Database) -> None:
        nodes = planning.report_nodes(database, NODE)
        assert _why(database, jobs.submit(database)).code == why.NOT_LOOKED_AT
        jobs.submit(database, resources=WHOLE_NODE)
        planning.decide(database, nodes)
        assert _why(database, jobs.submit(database, resources=WHOLE_NODE)).code == why.NOT_LOOKED_AT

    def test_explain__of_an_infeasible_job_says_it_can_never_start(self, database: Database) -> None:
        job_id = jobs.submit(database, resources={"cpus_per_worker": 64})
        nodes = planning.report_nodes(database, NODE)
        decision = planning.decide(database, nodes)
        assert list(decision.reasons.infeasible) == [job_id]
        answer = _why(database, job_id)
        assert (answer.code, answer.position) == ("infeasible_cluster", None)
        assert "Can never start" in answer.sentence


class TestOtherStates:
    def test_explain__of_a_running_job_tells_progress_and_what_it_was_asked(self, database: Database) -> None:
        lease = jobs.submit_and_claim(database, epochs=9)
        with database.unit_of_work() as session:
            queue.touch(session, lease, epochs_done=4)
        assert "4 of 9 epochs are done." in _why(database, lease.job_id).sentence
        with database.unit_of_work() as session:
            wishes.request_pause(session, lease.job_id, actor="bob")
        assert "will be held" in _why(database, lease.job_id).sentence

    def test_explain__of_a_failed_job_tells_cause_and_hint(self, database: Database) -> None:
        lease = jobs.submit_and_claim(database)
        with database.unit_of_work() as session:
            queue.fail(session, lease, kind=FailureKind.OUT_OF_MEMORY, message="8 GiB asked for, 2 GiB free")
        answer = _why(database, lease.job_id)
        assert (answer.state, answer.code) == (JobState.FAILED, "failed")
        assert "(out_of_memory): 8 GiB asked for, 2 GiB free. Clone it" in answer.sentence

    @pytest.mark.parametrize(
        ("end", "words"),
        [
            (lambda s, lease: queue.complete(s, lease, summary={}), "Succeeded at"),
            (queue.finish_cancelled, "a retry queues it again"),
        ],
    )
    def test_explain__of_an_ended_job_tells_how_it_ended(self, database: Database, end: object, words: str) -> None:
        lease = jobs.submit_and_claim(database)
        with database.unit_of_work() as session:
            end(session, lease)  # type: ignore[operator]
        assert words in _why(database, lease.job_id).sentence

    def test_explain__of_a_paused_job_says_what_it_waits_for(self, database: Database) -> None:
        job_id = jobs.submit(database)
        with database.unit_of_work() as session:
            wishes.request_pause(session, job_id, actor="bob")
        assert "until it is resumed" in _why(database, job_id).sentence

    def test_explain__of_an_unknown_job_is_not_found(self, database: Database) -> None:
        with pytest.raises(NotFoundError):
            _why(database, "nosuchjob")


class TestQueue:
    @pytest.fixture
    def line(self, database: Database) -> list[str]:
        nodes = planning.report_nodes(database, NODE)
        jobs.submit(database, resources=WHOLE_NODE)
        planning.decide(database, nodes)
        line = [jobs.submit(database, name=f"job{n}", resources=WHOLE_NODE, priority=-n) for n in range(4)]
        line.insert(0, jobs.submit(database, actor=BOB, resources=WHOLE_NODE, priority=5))
        planning.decide(database, nodes)
        return line

    def test_queue__before_the_first_decision_has_no_order_and_counts(self, database: Database) -> None:
        jobs.submit(database)
        assert _queue(database) == QueueRead(as_of=None, num_queued=1, items=[], next_position=None)

    def test_queue__shows_the_line_in_order_page_by_page(self, database: Database, line: list[str]) -> None:
        first = _queue(database, limit=3)
        rest = _queue(database, limit=3, after=first.next_position)
        assert [entry.job_id for entry in first.items + rest.items] == line
        assert [entry.position for entry in first.items + rest.items] == [1, 2, 3, 4, 5]
        assert (first.num_queued, rest.next_position) == (5, None)
        assert {entry.code for entry in first.items} <= {"insufficient_resources", "reserved"}

    def test_queue__leaves_out_jobs_that_have_left_it_since(self, database: Database, line: list[str]) -> None:
        with database.unit_of_work() as session:
            wishes.request_cancel(session, line[1], actor="bob")
        assert [entry.job_id for entry in _queue(database).items] == [line[0], *line[2:]]

    def test_queue__hides_who_is_behind_other_teams_jobs(self, database: Database, line: list[str]) -> None:
        first, second = _queue(database, limit=2, visible_team=ALICE.team).items
        assert (first.job_id, first.name, first.user, first.team, first.priority) == (None, None, None, "blue", 5)
        assert (second.job_id, second.name, second.user) == (line[1], "job0", "alice")
