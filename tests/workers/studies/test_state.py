"""Which trial comes next, and that a course made from rows goes on where the one before stopped."""

import pytest

from tests.support import studies
from tests.support.studies import ALICE, HandRunner
from xsam.services.db.session import Database
from xsam.services.jobs.states import FailureKind, JobState, Wish
from xsam.services.studies import trials, verbs
from xsam.services.studies.service import get
from xsam.services.studies.trials import CONFIRM, NewTrial
from xsam.workers.studies.ending import How, decide
from xsam.workers.studies.next_trial import SpaceError
from xsam.workers.studies.state import Course

GRID = {"sampler": {"name": "grid", "points": 3}, "num_trials": None}


def start(database: Database, **fields) -> tuple[HandRunner, Course]:
    runner = HandRunner.start(database, studies.submit(database, **fields))
    return runner, course_of(runner)


def course_of(runner: HandRunner) -> Course:
    with runner.database.read() as session:
        return Course(session, *get(session, runner.study_id))


def sync(runner: HandRunner, course: Course) -> None:
    with runner.database.read() as session:
        course.sync(session, get(session, runner.study_id)[1])


def step(runner: HandRunner, course: Course, value: float = 0.5, **measured) -> NewTrial | None:
    """Propose a trial, run it and take it in; None where none may start."""
    new = course.propose()
    if new is None:
        return None
    with runner.database.unit_of_work() as session:
        trials.enqueue(session, runner.lease, new)
    runner.finish(runner.claim(new.job_id), value, **measured)
    sync(runner, course)
    return new


def enqueue(runner: HandRunner, new: NewTrial) -> None:
    with runner.database.unit_of_work() as session:
        trials.enqueue(session, runner.lease, new)


def run_all(runner: HandRunner, course: Course, worth=lambda new: 0.5) -> list[NewTrial]:
    """Run the study to its end, one trial after the other."""
    made = []
    while (new := course.propose()) is not None:
        enqueue(runner, new)
        runner.finish(runner.claim(new.job_id), worth(new))
        sync(runner, course)
        made.append(new)
    return made


def test_propose__keeps_to_the_concurrency(sqlite_database):
    runner, course = start(sqlite_database, concurrency=2)
    first, second = course.propose(), course.propose()
    assert first is not None
    assert second is not None
    assert course.propose() is None
    enqueue(runner, first)
    runner.finish(runner.claim(first.job_id), 0.5)
    sync(runner, course)
    assert course.propose() is not None


def test_propose__ends_with_the_last_configuration(sqlite_database):
    runner, course = start(sqlite_database, **GRID)
    made = run_all(runner, course)
    assert [new.point["optimizer.rho"] for new in made] == [0.01, 0.0707107, 0.5]
    assert course.is_over
    end = decide(course, None, None)
    assert end is not None
    assert (end.how, end.summary["ended_by"], end.summary["num_trials"]) == (How.SUCCEEDED, "finished", 3)


def test_seeds__follow_one_another_and_their_mean_counts(sqlite_database):
    runner, course = start(sqlite_database, seeds_per_config=3, num_trials=6)
    made = run_all(runner, course)
    assert [(new.config, new.seed) for new in made] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert made[0].point == made[1].point != made[3].point


def test_arms__are_searched_side_by_side_then_confirmed_on_new_seeds(sqlite_database):
    worth = {"xsam": 0.8, "sgd": 0.6, "sam": 0.7}
    runner, course = start(sqlite_database, control=True, num_trials=3, confirm_seeds=2)
    made = run_all(runner, course, lambda new: worth[new.arm] - 0.1 * new.config)
    searched = [new.arm for new in made if new.phase != CONFIRM]
    assert sorted(searched) == ["sam"] * 3 + ["sgd"] + ["xsam"] * 3
    assert set(searched[:3]) == {"xsam", "sgd", "sam"}
    confirmed = made[len(searched) :]
    assert [(new.arm, new.config) for new in confirmed] == [("xsam", 0), ("sgd", 0), ("sam", 0)] * 2
    assert {new.seed for new in confirmed}.isdisjoint({new.seed for new in made[: len(searched)]})


def test_restart__runs_no_finished_trial_again_and_takes_up_running_ones(sqlite_database):
    whole_runner, whole = start(sqlite_database, num_trials=8)
    expected = [new.point for new in run_all(whole_runner, whole)]
    runner, course = start(sqlite_database, num_trials=8)
    for _ in range(3):
        step(runner, course)
    running = course.propose()
    assert running is not None
    enqueue(runner, running)
    again = course_of(runner)
    adopted = again.adopt(num_given=0)
    assert adopted is not None
    assert adopted.job_id == running.job_id
    assert again.adopt(num_given=0) is None
    runner.finish(runner.claim(running.job_id), 0.5)
    sync(runner, again)
    rest = run_all(runner, again)
    assert len(rest) == 4
    assert len(studies.load(sqlite_database, runner.study_id)) == 8
    points = [trial.point for trial in studies.load(sqlite_database, runner.study_id)]
    assert points[:4] == expected[:4]


def test_extension__is_taken_in_while_running(sqlite_database):
    runner, course = start(sqlite_database, **GRID)
    run_all(runner, course)
    assert course.is_over
    wide = {"optimizer.rho": {"type": "log_uniform", "low": 0.01, "high": 2.0}}
    with sqlite_database.unit_of_work() as session:
        verbs.extend(session, runner.study_id, actor=ALICE, num_trials=0, space=wide)
    with sqlite_database.unit_of_work() as session:
        get(session, runner.study_id)[1].num_configs = 5
        get(session, runner.study_id)[1].revision += 1
    sync(runner, course)
    assert not course.is_over
    assert [new.point["optimizer.rho"] for new in run_all(runner, course)] == [0.141421, 2.0]


def test_hold__lets_nothing_start_and_ends_the_study_when_nothing_runs(sqlite_database):
    runner, course = start(sqlite_database)
    step(runner, course)
    with sqlite_database.unit_of_work() as session:
        verbs.pause(session, runner.study_id, actor=ALICE)
    sync(runner, course)
    assert course.propose() is None
    assert not course.is_over
    end = decide(course, None, None)
    assert end is not None
    assert end.how is How.PAUSED
    with sqlite_database.unit_of_work() as session:
        verbs.stop(session, runner.study_id, actor=ALICE)
    sync(runner, course)
    end = decide(course, None, None)
    assert end is not None
    assert (end.how, end.summary["ended_by"]) == (How.SUCCEEDED, "stop")


def test_budget__starts_no_trial_that_could_exceed_it(sqlite_database):
    """A trial takes 2 steps x 4 epochs x 2 = 16 gradient evaluations."""
    runner, course = start(sqlite_database, budget={"grad_evals": 40}, num_trials=6)
    assert step(runner, course) is not None
    assert not course.is_budget_spent
    assert step(runner, course) is not None
    assert course.propose() is None
    end = decide(course, None, None)
    assert end is not None
    assert end.summary["ended_by"] == "budget"


def test_budget__gives_what_an_early_stop_saved_to_the_next_trial(sqlite_database):
    runner, course = start(sqlite_database, budget={"grad_evals": 40}, concurrency=2)
    first, second = course.propose(), course.propose()
    assert first is not None
    assert second is not None
    with sqlite_database.unit_of_work() as session:
        verbs.set_concurrency(session, runner.study_id, 3, actor=ALICE)
    enqueue(runner, first)
    enqueue(runner, second)
    sync(runner, course)
    assert course.propose() is None
    assert not course.is_over
    runner.finish(runner.claim(first.job_id), 0.3, epochs=1, grad_evals=4)
    sync(runner, course)
    assert course.propose() is not None


def test_failures__end_the_study_at_the_limit_with_the_cause_named(sqlite_database):
    runner, course = start(sqlite_database, max_failures=2)
    for kind, message in (
        (FailureKind.DIVERGED, "nan"),
        (FailureKind.USER, "no such file"),
        (FailureKind.USER, "no such file"),
    ):
        assert decide(course, None, None) is None
        new = course.propose()
        assert new is not None
        enqueue(runner, new)
        runner.fail(runner.claim(new.job_id), kind, message)
        sync(runner, course)
    assert course.propose() is None
    end = decide(course, None, None)
    assert end is not None
    assert end.how is How.FAILED
    assert end.message == "2 trials failed, the limit is 2; 2 of them (trials 2, 3): user: no such file"


def test_retried_failure__no_longer_counts(sqlite_database):
    runner, course = start(sqlite_database, max_failures=1)
    new = course.propose()
    assert new is not None
    enqueue(runner, new)
    runner.fail(runner.claim(new.job_id))
    sync(runner, course)
    assert course.has_failed
    with sqlite_database.unit_of_work() as session:
        verbs.retry_failed(session, runner.study_id, actor=ALICE)
    sync(runner, course)
    assert not course.has_failed
    adopted = course.adopt(num_given=0)
    assert adopted is not None
    assert (adopted.job_id, adopted.state) == (new.job_id, JobState.QUEUED)
    runner.finish(runner.claim(new.job_id), 0.7)
    sync(runner, course)
    assert course.trials[0].value == 0.7


def test_withdrawn_trial__is_the_next_proposal(sqlite_database):
    _, course = start(sqlite_database, **GRID)
    new = course.propose()
    assert new is not None
    course.withdraw(new)
    assert course.num_live == 0
    assert course.propose() is new


def test_success__counts_before_its_rows_are_written(sqlite_database):
    _, course = start(sqlite_database, concurrency=1)
    new = course.propose()
    assert new is not None
    course.note_success(new.job_id)
    assert course.propose() is not None


def test_space_without_valid_jobs__is_named(sqlite_database):
    """Its ends are valid, each by itself and together; what lies between is not."""
    space = {"batch_size": {"type": "int", "low": 32, "high": 64}}
    base = {**studies.SMALL["base"], "resources": {"num_workers": 32}}
    _, course = start(sqlite_database, space=space, base=base, sampler={"name": "random", "seed": 5})

    def exhaust() -> None:
        for _ in range(100):
            course.propose()
            for trial in course.trials:
                course.note_success(trial.job_id)

    with pytest.raises(SpaceError) as caught:
        exhaust()
    assert caught.value.field == "space.batch_size"


@pytest.mark.parametrize(
    ("wish", "how", "stops"),
    [
        (Wish.CANCEL, How.CANCELLED, Wish.CANCEL),
        (Wish.PREEMPT, How.QUEUED, Wish.PREEMPT),
        (Wish.PAUSE, How.PAUSED, Wish.PREEMPT),
    ],
)
def test_wish__decides_how_the_study_makes_way(sqlite_database, wish, how, stops):
    _, course = start(sqlite_database)
    end = decide(course, wish, None)
    assert end is not None
    assert (end.how, end.stops) == (how, stops)


def test_trial_states__follow_the_rows(sqlite_database):
    runner, course = start(sqlite_database)
    new = course.propose()
    assert new is not None
    enqueue(runner, new)
    runner.claim(new.job_id)
    sync(runner, course)
    (trial,) = course.trials
    assert (trial.state, trial.number) == (JobState.RUNNING, 1)
