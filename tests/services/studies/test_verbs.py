"""What people tell a study, on both databases, while it waits, runs, is paused and has ended."""

import pytest

from tests.support import jobs, studies
from tests.support.studies import ALICE, HandRunner
from xsam.services.errors import InvalidRequestError, InvalidTransitionError, NotFoundError
from xsam.services.jobs import queue
from xsam.services.jobs.states import FailureKind, JobState
from xsam.services.studies import verbs

POINT = {"optimizer.rho": 0.1}
WIDE = {"optimizer.rho": {"type": "log_uniform", "low": 0.01, "high": 1.0}}


def tell(database, verb, study_id, *args, **fields):
    with database.unit_of_work() as session:
        return verb(session, study_id, *args, actor=ALICE, **fields)


def states(database, study_id):
    return [trial.state for trial in studies.load(database, study_id)]


def test_pause__holds_waiting_trials_and_lets_running_ones_finish(database):
    runner = HandRunner.start(database, studies.submit(database))
    running = runner.claim(runner.propose(POINT))
    runner.propose(POINT, config=1)
    tell(database, verbs.pause, runner.study_id)
    assert states(database, runner.study_id) == [JobState.RUNNING, JobState.PAUSED]
    runner.finish(running, 0.5)
    tell(database, verbs.resume, runner.study_id)
    assert states(database, runner.study_id) == [JobState.SUCCEEDED, JobState.QUEUED]
    assert studies.read(database, runner.study_id)[1].hold is None


def test_pause__holds_a_study_that_has_not_started(database):
    study_id = studies.submit(database)
    assert tell(database, verbs.pause, study_id).state == JobState.PAUSED
    assert tell(database, verbs.resume, study_id).state == JobState.QUEUED


def test_stop__cancels_what_waits_and_wakes_a_paused_study_to_end(database):
    runner = HandRunner.start(database, studies.submit(database))
    runner.claim(runner.propose(POINT))
    runner.propose(POINT, config=1)
    tell(database, verbs.stop, runner.study_id)
    assert states(database, runner.study_id) == [JobState.RUNNING, JobState.CANCELLED]
    paused = studies.submit(database)
    tell(database, verbs.pause, paused)
    assert tell(database, verbs.stop, paused).state == JobState.QUEUED
    with pytest.raises(InvalidTransitionError, match="told to stop"):
        tell(database, verbs.pause, paused)
    with pytest.raises(InvalidTransitionError, match="told to stop"):
        tell(database, verbs.resume, paused)


def test_cancel__reaches_every_trial(database):
    runner = HandRunner.start(database, studies.submit(database))
    runner.run(POINT, 0.4)
    running = runner.claim(runner.propose(POINT, config=1))
    runner.propose(POINT, config=2)
    job = tell(database, verbs.cancel, runner.study_id)
    assert (job.state, job.wish) == (JobState.RUNNING, "cancel")
    assert states(database, runner.study_id) == [JobState.SUCCEEDED, JobState.RUNNING, JobState.CANCELLED]
    assert jobs.read(database, running.job_id).wish == "cancel"


def test_cancel__ends_a_waiting_study_at_once(database):
    assert tell(database, verbs.cancel, studies.submit(database)).state == JobState.CANCELLED


def test_retry_failed__tries_again_what_failed_but_not_what_diverged(database):
    runner = HandRunner.start(database, studies.submit(database))
    runner.fail(runner.claim(runner.propose(POINT, config=0, seed=3)), FailureKind.USER)
    runner.fail(runner.claim(runner.propose({"optimizer.rho": 0.5}, config=1)), FailureKind.DIVERGED)
    runner.end()
    job, num = tell(database, verbs.retry_failed, runner.study_id)
    assert (num, job.state) == (1, JobState.QUEUED)
    assert states(database, runner.study_id) == [JobState.QUEUED, JobState.FAILED]
    assert tell(database, verbs.retry_failed, runner.study_id)[1] == 0
    assert tell(database, verbs.retry_failed, runner.study_id, kind=FailureKind.DIVERGED)[1] == 1
    assert states(database, runner.study_id) == [JobState.QUEUED, JobState.QUEUED]


def test_extend__adds_trials_while_it_runs(database):
    runner = HandRunner.start(database, studies.submit(database))
    job = tell(database, verbs.extend, runner.study_id, num_trials=4)
    study = studies.read(database, runner.study_id)[1]
    assert (job.state, study.num_configs, study.revision) == (JobState.RUNNING, 10, 1)


@pytest.mark.parametrize("is_stopped", [False, True])
def test_extend__takes_up_a_study_that_has_ended(database, is_stopped):
    runner = HandRunner.start(database, studies.submit(database))
    runner.run(POINT, 0.4)
    if is_stopped:
        tell(database, verbs.stop, runner.study_id)
    runner.end()
    job = tell(database, verbs.extend, runner.study_id, num_trials=2)
    assert (job.state, job.finished_at, job.summary) == (JobState.QUEUED, None, None)
    assert studies.read(database, runner.study_id)[1].hold is None
    again = HandRunner.start(database, runner.study_id)
    assert again.lease.attempt == 2
    assert states(database, runner.study_id) == [JobState.SUCCEEDED]


def test_extend__widens_a_range(database):
    study_id = studies.submit(database)
    tell(database, verbs.extend, study_id, space=WIDE)
    assert studies.read(database, study_id)[1].space["optimizer.rho"]["high"] == 1.0


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "num_trials"),
        ({"num_trials": -1}, "num_trials"),
        ({"num_trials": 20_000}, "num_trials"),
        ({"space": {"optimizer.alpha_max": WIDE["optimizer.rho"]}}, "space.optimizer.alpha_max"),
        ({"space": {"optimizer.rho": {"type": "log_uniform", "low": 0.1, "high": 0.5}}}, "space.optimizer.rho"),
        ({"space": {"optimizer.rho": {"type": "uniform", "low": 0.001, "high": 5}}}, "space.optimizer.rho"),
        ({"space": {"optimizer.rho": {"type": "log_uniform", "low": 0.01, "high": 500}}}, "space.optimizer.rho"),
        ({"space": {"optimizer.rho": {"type": "log_uniform"}}}, "space.optimizer.rho.log_uniform.low"),
    ],
)
def test_extend__refuses_what_is_no_extension(sqlite_database, fields, field):
    study_id = studies.submit(sqlite_database)
    with pytest.raises(InvalidRequestError) as caught:
        tell(sqlite_database, verbs.extend, study_id, **fields)
    assert caught.value.field == field


def test_extend__keeps_to_whole_configurations_and_to_the_grid(sqlite_database):
    seeds = studies.submit(sqlite_database, seeds_per_config=3)
    with pytest.raises(InvalidRequestError, match="multiples of seeds_per_config"):
        tell(sqlite_database, verbs.extend, seeds, num_trials=4)
    grid = studies.submit(sqlite_database, sampler={"name": "grid", "points": 6})
    with pytest.raises(InvalidRequestError, match="the grid has 6 points"):
        tell(sqlite_database, verbs.extend, grid, num_trials=1)


def test_set_concurrency__changes_the_number_within_limits(database):
    study_id = studies.submit(database)
    tell(database, verbs.set_concurrency, study_id, 7)
    assert studies.read(database, study_id)[1].concurrency == 7
    with pytest.raises(InvalidRequestError, match="allowed is 1 to 64"):
        tell(database, verbs.set_concurrency, study_id, 0)


def test_cancelled_study__stays_cancelled(database):
    runner = HandRunner.start(database, studies.submit(database))
    runner.fail(runner.claim(runner.propose(POINT)))
    tell(database, verbs.cancel, runner.study_id)
    with database.unit_of_work() as session:
        queue.finish_cancelled(session, runner.lease)
    for verb, fields in (
        (verbs.pause, {}),
        (verbs.resume, {}),
        (verbs.stop, {}),
        (verbs.extend, {"num_trials": 2}),
        (verbs.retry_failed, {}),
    ):
        with pytest.raises(InvalidTransitionError, match="cancelled"):
            tell(database, verb, runner.study_id, **fields)


def test_verbs__know_studies_only(database):
    job_id = jobs.submit(database)
    for verb in (verbs.pause, verbs.resume, verbs.stop, verbs.cancel, verbs.retry_failed):
        with pytest.raises(NotFoundError):
            tell(database, verb, job_id)


def test_verbs__leave_an_event_with_the_actor(database):
    study_id = studies.submit(database)
    tell(database, verbs.pause, study_id)
    assert jobs.event_kinds(database, study_id) == ["submitted", "paused"]
