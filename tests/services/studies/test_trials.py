"""Trials in the queue, on both databases."""

import pytest

from tests.support import jobs, planning, studies
from tests.support.studies import HandRunner
from xsam.services.cluster import cordons
from xsam.services.cluster.service import NodeSeen
from xsam.services.db.session import Database
from xsam.services.errors import LeaseLostError
from xsam.services.jobs import queue
from xsam.services.jobs.models import Job
from xsam.services.jobs.states import FailureKind, JobState
from xsam.services.scheduling.policy.plan import plan
from xsam.services.scheduling.snapshot import take_snapshot
from xsam.services.studies import trials, verbs
from xsam.services.studies.spec import Objective
from xsam.services.studies.trials import objective_of

NODES = [NodeSeen("node-1", "host-1", 4.0, 0.0)]
POINT = {"optimizer.rho": 0.1}


def offered(database: Database) -> set[str]:
    """Return the ids of the jobs that the dispatcher's next plan would consider."""
    with database.read() as session:
        return {job.job_id for job in take_snapshot(session, NODES, takers=trials.has_takers()).pending}


def hand_over(runner: HandRunner, left_id: str, next_id: str) -> str | None:
    with runner.database.unit_of_work() as session:
        left = session.get_one(Job, left_id)
        claimed = trials.hand_over(
            session, runner.lease, next_id, left=left, runner="dispatcher-1", nodes=["node-1"], lease_s=60
        )
        return None if claimed is None else claimed.lease.job_id


def test_enqueue__numbers_trials_and_gives_them_the_studys_standing(database):
    study_id = studies.submit(database, base={**studies.SMALL["base"], "priority": 7, "labels": {"a": "b"}}, name="s")
    runner = HandRunner.start(database, study_id)
    ids = [runner.propose({"optimizer.rho": rho}, config=i) for i, rho in enumerate((0.1, 0.2))]
    first, second = studies.load(database, study_id)
    assert [first.job_id, second.job_id] == ids
    assert [first.number, second.number] == [1, 2]
    assert second.point == {"optimizer.rho": 0.2}
    row = jobs.read(database, ids[1])
    assert (row.kind, row.team, row.priority, row.labels, row.name) == ("trial", "red", 7, {"a": "b"}, "s 2")
    assert row.spec["optimizer"]["rho"] == 0.2


def test_enqueue__is_refused_to_a_runner_that_lost_the_study(database):
    runner = HandRunner.start(database, studies.submit(database))
    jobs.let_lease_expire(database, runner.study_id)
    with pytest.raises(LeaseLostError):
        runner.propose(POINT)
    assert studies.load(database, runner.study_id) == []


def test_study__holds_nothing_and_is_never_placed_as_a_job(database):
    study_id = studies.submit(database)
    assert offered(database) == set()
    runner = HandRunner.start(database, study_id)
    trial_id = runner.propose(POINT)
    with database.read() as session:
        snapshot = take_snapshot(session, NODES, takers=trials.has_takers())
    assert [job.job_id for job in snapshot.pending] == [trial_id]
    assert snapshot.running == []
    assert plan(snapshot).placements[0].job_id == trial_id


def test_trial__is_offered_only_while_its_study_has_a_runner(database):
    runner = HandRunner.start(database, studies.submit(database))
    trial_id = runner.propose(POINT)
    assert offered(database) == {trial_id}
    with database.unit_of_work() as session:
        message = "preempted"
        queue.release(session, runner.lease, outcome=FailureKind.PREEMPTED, message=message)
    assert offered(database) == set()


def test_finish__keeps_the_value_and_the_cost(database):
    runner = HandRunner.start(database, studies.submit(database))
    trial_id = runner.run(POINT, 0.8)
    (trial,) = studies.load(database, runner.study_id)
    assert (trial.state, trial.value, trial.grad_evals) == (JobState.SUCCEEDED, 0.8, 16)
    assert jobs.event_kinds(database, trial_id)[-1] == "succeeded"


def test_failed_trial__keeps_what_it_cost(database):
    runner = HandRunner.start(database, studies.submit(database))
    lease = runner.claim(runner.propose(POINT))
    runner.measure(lease, [0.1, 0.2], grad_evals=8)
    runner.fail(lease, FailureKind.DIVERGED, "loss is nan")
    (trial,) = studies.load(database, runner.study_id)
    assert (trial.state, trial.failure_kind, trial.grad_evals) == (JobState.FAILED, "diverged", 8)
    assert not trial.is_failure


def test_hand_over__gives_the_place_to_the_next_trial(database):
    runner = HandRunner.start(database, studies.submit(database))
    first, second = runner.propose(POINT), runner.propose(POINT, config=1)
    runner.finish(runner.claim(first), 0.5)
    assert hand_over(runner, first, second) == second
    row = jobs.read(database, second)
    assert (row.state, row.placement, row.attempt) == (JobState.RUNNING, ["node-1"], 1)


def test_hand_over__prefers_an_own_trial_that_waited_longer(database):
    runner = HandRunner.start(database, studies.submit(database))
    first, waiting, newest = (runner.propose(POINT, config=i) for i in range(3))
    runner.finish(runner.claim(first), 0.5)
    assert hand_over(runner, first, newest) == waiting


@pytest.mark.parametrize("cordoned", ["node-1", "host-1", "*", "host-2"])
def test_hand_over__not_on_a_node_that_takes_no_new_jobs(database, cordoned):
    planning.report_nodes(database, NodeSeen("node-1", "host-1", 4, 0), NodeSeen("node-2", "host-2", 4, 0))
    runner = HandRunner.start(database, studies.submit(database))
    first, second = runner.propose(POINT), runner.propose(POINT, config=1)
    runner.finish(runner.claim(first), 0.5)
    with database.unit_of_work() as session:
        cordons.put(session, cordoned, reason=None, by="root", drain_within_s=None)
    assert hand_over(runner, first, second) == (second if cordoned == "host-2" else None)


@pytest.mark.parametrize("priority", [-5, 0, 5])
def test_hand_over__leaves_the_place_to_the_dispatcher_while_another_job_waits(database, priority):
    runner = HandRunner.start(database, studies.submit(database))
    first, second = runner.propose(POINT), runner.propose(POINT, config=1)
    other = jobs.submit(database, actor=studies.BOB, priority=priority)
    runner.finish(runner.claim(first), 0.5)
    assert hand_over(runner, first, second) is None
    assert jobs.state(database, second) is JobState.QUEUED
    assert offered(database) == {second, other}


def test_hand_over__ignores_jobs_whose_time_has_not_come(database):
    runner = HandRunner.start(database, studies.submit(database))
    first, second = runner.propose(POINT), runner.propose(POINT, config=1)
    lease = jobs.submit_and_claim(database, actor=studies.BOB)
    with database.unit_of_work() as session:
        queue.postpone(session, lease, delay_s=600, message="later")
    runner.finish(runner.claim(first), 0.5)
    assert hand_over(runner, first, second) == second


def test_five_hundred_trials__do_not_block_another_teams_job(database):
    """Fair share counts trials as jobs: whoever holds less goes first, however many trials wait."""
    runner = HandRunner.start(database, studies.submit(database))
    for config in range(4):
        runner.claim(runner.propose(POINT, config=config))
    for config in range(4, 60):
        runner.propose(POINT, config=config)
    other = jobs.submit(database, actor=studies.BOB)
    with database.read() as session:
        full = take_snapshot(session, NODES, takers=trials.has_takers())
    assert plan(full).placements == ()
    runner.finish(lease_of(database, studies.load(database, runner.study_id)[0].job_id), 0.5)
    with database.read() as session:
        one_free = take_snapshot(session, NODES, takers=trials.has_takers())
    assert [placed.job_id for placed in plan(one_free).placements] == [other]


def lease_of(database: Database, job_id: str) -> queue.Lease:
    row = jobs.read(database, job_id)
    return queue.Lease(job_id, row.lease_token or "", row.attempt)


def test_running_leases__are_those_of_the_study_alone(database):
    runner = HandRunner.start(database, studies.submit(database))
    lease = runner.claim(runner.propose(POINT))
    runner.propose(POINT, config=1)
    jobs.submit_and_claim(database)
    with database.read() as session:
        assert trials.running_leases(session, runner.study_id) == [lease]


def test_paused_study__is_offered_nothing_new(database):
    runner = HandRunner.start(database, studies.submit(database))
    trial_id = runner.propose(POINT)
    with database.unit_of_work() as session:
        verbs.pause(session, runner.study_id, actor=studies.ALICE)
    assert offered(database) == set()
    assert jobs.state(database, trial_id) is JobState.PAUSED


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        ({"metric": "eval_accuracy", "at": "best"}, 0.9),
        ({"metric": "eval_accuracy", "at": "last"}, 0.7),
        ({"metric": "eval_loss", "at": "best"}, 0.5),
    ],
)
def test_objective__is_the_best_or_the_last_epochs(objective, expected):
    assert objective_of(Objective.model_validate(objective), [0.5, 0.9, 0.7]) == expected
    assert objective_of(Objective.model_validate(objective), []) is None
