"""Rows of lists on both databases."""

from typing import Any

import pytest

from tests.support import jobs, planning, studies
from tests.support.jobs import ALICE, BOB
from tests.support.row_runner import SUMMARY, epoch_record
from tests.support.studies import HandRunner
from xsam.services.cluster.service import NodeSeen
from xsam.services.db.session import Database
from xsam.services.errors import NotFoundError
from xsam.services.jobs import queue
from xsam.services.jobs.listing import CountBy, JobFilter
from xsam.services.metrics import service as metrics
from xsam.services.reports import job_rows
from xsam.services.reports.job_rows import JobRow
from xsam.services.teams.roles import Principal

NODE = NodeSeen("n1", "node-1", num_cpus=4, num_gpus=0)
WHOLE_NODE = {"resources": {"cpus_per_worker": 4}}


def _rows(database: Database, visible_team: str | None = None, **where: Any) -> dict[str, JobRow]:
    with database.read() as session:
        page = job_rows.list_rows(session, where=JobFilter(**where), visible_team=visible_team)
        return {row.id: row for row in page.items}


def test_row__of_a_queued_job_says_why_it_waits(database: Database) -> None:
    nodes = planning.report_nodes(database, NODE)
    first = jobs.submit(database, actor=BOB, **WHOLE_NODE)
    planning.decide(database, nodes)
    second = jobs.submit(database, actor=ALICE, **WHOLE_NODE)
    planning.decide(database, nodes)
    late = jobs.submit(database, actor=ALICE)
    rows = _rows(database, "red")
    waiting = rows[second].why
    assert waiting is not None
    assert (waiting.code, waiting.position) == ("insufficient_resources", 1)
    assert first not in waiting.sentence
    late_why = rows[late].why
    assert late_why is not None
    assert late_why.code == "not_looked_at"
    assert rows[first].why is None


def test_row__of_a_running_job_shows_the_best_and_the_cost_so_far(database: Database) -> None:
    lease = jobs.submit_and_claim(database, epochs=9, optimizer={"variant": "sam", "rho": 0.3})
    with database.unit_of_work() as session:
        metrics.write_epochs(session, lease, [epoch_record(1), epoch_record(2)])
    row = _rows(database)[lease.job_id]
    assert (row.best_value, row.best_metric, row.grad_evals) == (0.75, "accuracy:max", 40)
    assert (row.progress.epochs_done, row.optimizer["variant"], row.optimizer["rho"]) == (2, "sam", 0.3)


def test_row__of_a_job_that_succeeded_has_its_result(database: Database) -> None:
    lease = jobs.submit_and_claim(database)
    with database.unit_of_work() as session:
        queue.complete(session, lease, summary=SUMMARY)
    row = _rows(database)[lease.job_id]
    assert (row.best_value, row.grad_evals, row.why, row.failure) == (0.9, 40, None, None)
    stored = jobs.read(database, lease.job_id)
    assert (stored.best_value, stored.grad_evals) == (0.9, 40)


def test_row__of_a_failed_job_says_what_helps(database: Database) -> None:
    job_id = jobs.submit(database, batch_size=66)
    jobs.set_columns(database, job_id, state="failed", failure_kind="out_of_memory", failure_message="x" * 1000)
    strange = jobs.submit(database)
    jobs.set_columns(database, strange, state="failed", failure_kind="of a later release", spec={"who": "knows"})
    rows = _rows(database)
    failure = rows[job_id].failure
    assert failure is not None
    assert (failure.kind, len(failure.message)) == ("out_of_memory", 300)
    assert "batch_size below 66" in failure.hint
    odd = rows[strange].failure
    assert odd is not None
    assert (odd.kind, odd.hint, rows[strange].optimizer) == ("other", "", {})


def test_rows__of_a_study_s_trials(database: Database) -> None:
    runner = HandRunner.start(database, studies.submit(database, actor=ALICE))
    runner.run({"optimizer.rho": 0.1}, 0.5)
    own = jobs.submit(database)
    ann, eve = Principal("alice", "red"), Principal("eve", "green")
    with database.read() as session:
        among = job_rows.trials_of(session, runner.study_id, ann)
        [row] = job_rows.list_rows(session, where=JobFilter(among=among)).items
        with pytest.raises(NotFoundError, match="no study"):
            job_rows.trials_of(session, runner.study_id, eve)
    assert (row.study_id, row.trial) == (runner.study_id, 1)
    assert set(_rows(database)) == {own}


def test_count__sums_its_groups(database: Database) -> None:
    for _ in range(3):
        jobs.submit(database)
    with database.read() as session:
        found = job_rows.count(session, where=JobFilter(), by=[CountBy.STATE])
        plain = job_rows.count(session, where=JobFilter())
    assert (found.num, found.is_exact, [group.state for group in found.groups]) == (3, True, ["queued"])
    assert (plain.num, plain.groups) == (3, [])
