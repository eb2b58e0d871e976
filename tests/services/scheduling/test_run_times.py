"""Estimates from measured paces, on rows: what backfill does with them, and what a wrong one may cost."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event

from tests.support import jobs
from xsam.services.cluster.service import NodeSeen
from xsam.services.db.session import Database
from xsam.services.jobs import queue
from xsam.services.scheduling import run_times
from xsam.services.scheduling import snapshot as scheduling
from xsam.services.scheduling.policy.plan import Plan, plan
from xsam.services.scheduling.run_times import RunTimes
from xsam.services.settings import SchedulingSettings
from xsam.services.specs.job import JobSpec

NODE = NodeSeen("n1", "10.0.0.1", num_cpus=4, num_gpus=0)
PACE_S = 0.5


def _grad_evals(**fields: object) -> int:
    spec = JobSpec.model_validate(fields)
    assert spec.num_train is not None
    return spec.epochs * (spec.num_train // spec.batch_size) * spec.optimizer.grad_evals_per_step


def _measure(database: Database, **fields: object) -> None:
    """Let a job like this have run at the pace of `PACE_S`."""
    lease = jobs.submit_and_claim(database, **fields)
    count = _grad_evals(**fields)
    with database.unit_of_work() as session:
        queue.complete(session, lease, summary={"train_s": PACE_S * count, "grad_evals": count})


def _ask(database: Database, known: RunTimes | None, **settings: float) -> tuple[scheduling.Snapshot, Plan]:
    with database.read() as session:
        snapshot = scheduling.take_snapshot(session, [NODE], run_times=known)
    return snapshot, plan(snapshot, SchedulingSettings(is_preemption_on=False, **settings))


def _placed(made: Plan) -> list[str]:
    return [placed.job_id for placed in made.placements]


LONG = {"epochs": 50, "resources": {"cpus_per_worker": 3}}
LARGE = {"resources": {"cpus_per_worker": 4}}
SHORT = {"epochs": 1, "resources": {"cpus_per_worker": 1}}


@pytest.fixture
def hole(database: Database) -> tuple[str, str]:
    """A long job runs, a large one waits for the whole node, a short one could fill the hole: ids of the last two."""
    _measure(database, **LONG)
    _measure(database, **SHORT)
    lease = jobs.submit_and_claim(database, **LONG)
    jobs.set_columns(database, lease.job_id, placement=["n1"])
    return jobs.submit(database, **LARGE), jobs.submit(database, **SHORT)


def test_backfill__fills_a_hole_before_a_promise_by_the_measured_pace(
    database: Database, hole: tuple[str, str]
) -> None:
    large, short = hole
    snapshot, made = _ask(database, RunTimes())
    assert _placed(made) == [short]
    assert made.holders == (large,)
    [running] = snapshot.running
    assert running.expected_end_at is not None
    left_s = (running.expected_end_at - snapshot.now).total_seconds()
    assert left_s == pytest.approx(PACE_S * _grad_evals(**LONG), abs=5)
    promised_at = made.reasons[large].estimated_start_at
    assert promised_at == running.expected_end_at
    by_id = {job.job_id: job for job in snapshot.pending}
    assert by_id[short].expected_run_time_s == PACE_S * _grad_evals(**SHORT)
    assert by_id[large].expected_run_time_s is None  # nothing comparable has run
    assert _placed(_ask(database, None)[1]) == []  # without estimates nothing is known to end in time


def test_backfill__a_job_that_would_end_too_late_by_the_measured_pace_waits(database: Database) -> None:
    _measure(database, **LONG)
    _measure(database, **SHORT)
    lease = jobs.submit_and_claim(database, **LONG)
    jobs.set_columns(database, lease.job_id, placement=["n1"], epochs_done=49)
    jobs.submit(database, **LARGE)
    jobs.submit(database, **SHORT)  # as long as what is left of the long one, and estimates count half as long again
    assert _placed(_ask(database, RunTimes())[1]) == []


def test_backfill__a_wrong_estimate_delays_a_promise_until_patience_ends_and_no_longer(
    database: Database, hole: tuple[str, str]
) -> None:
    """Jobs that run longer than measured: one may start while the large one is patient, none after that."""
    large, short = hole
    assert _placed(_ask(database, RunTimes(), patience_s=3600)[1]) == [short]
    long_ago = datetime.now(UTC) - timedelta(seconds=3601)
    jobs.set_columns(database, large, created_at=long_ago, scheduled_at=long_ago)
    _, tired = _ask(database, RunTimes(), patience_s=3600)
    assert _placed(tired) == []
    assert tired.holders == (large,)


def test_run_times__an_estimate_that_has_passed_says_nothing(database: Database, hole: tuple[str, str]) -> None:
    with database.read() as session:
        [running] = scheduling.take_snapshot(session, [NODE]).running
    jobs.set_columns(database, running.job_id, reported_at=datetime.now(UTC) - timedelta(days=30))
    _, made = _ask(database, RunTimes())
    assert made.reasons[hole[0]].estimated_start_at is None
    assert _placed(made) == []


def test_run_times__count_what_is_done(database: Database) -> None:
    _measure(database, epochs=10)
    half = jobs.submit(database, epochs=10)
    jobs.set_columns(database, half, epochs_done=5)
    snapshot, _ = _ask(database, RunTimes())
    assert [job.expected_run_time_s for job in snapshot.pending] == [PACE_S * _grad_evals(epochs=10) / 2]
    known = RunTimes()
    with database.read() as session:
        known.look(session, [half], snapshot.now)
    steps = _grad_evals(epochs=10) // JobSpec(epochs=10).optimizer.grad_evals_per_step
    assert known.left_s(half, share_done=0.5, step=steps) == 0.0
    assert known.left_s("unknown", share_done=0.0) is None


def test_run_times__ask_for_what_they_do_not_know_only(
    database: Database, monkeypatch: pytest.MonkeyPatch, hole: tuple[str, str]
) -> None:
    """Two queries at most, one row per job not seen before, whatever the history."""
    monkeypatch.setattr(run_times, "MAX_NEW_JOBS", 2)
    known, now = RunTimes(), datetime.now(UTC)
    asked: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *args: asked.append(str(args[2])))

    def look(ids: Sequence[str], at: datetime) -> int:
        asked.clear()
        with database.read() as session:
            known.look(session, ids, at)
        return len([text for text in asked if text.startswith("SELECT")])

    ids = [*hole, jobs.submit(database, **SHORT)]
    assert look(ids, now) == 2
    assert known.left_s(ids[2], share_done=0.0) is None
    assert look(ids, now) == 1
    assert known.left_s(ids[2], share_done=0.0) is not None
    assert look(ids, now) == 0
    assert look(ids, now + timedelta(seconds=run_times.PACES_HOLD_S)) == 1
