"""Which trial comes next, which ends early, and that a state made from rows goes on where the one before stopped."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support import studies
from tests.support.studies import ALICE, HandRunner
from tests.workers.studies.test_early_stopping import epochs
from xsam.services.db.session import Database
from xsam.services.jobs.queue import Lease
from xsam.services.jobs.states import FailureKind, JobState, Wish
from xsam.services.studies import trials, verbs
from xsam.services.studies.service import get
from xsam.services.studies.trials import CONFIRM, NewTrial
from xsam.workers.studies.ending import How, decide
from xsam.workers.studies.state import StudyState

GRID = {"sampler": {"name": "grid", "points": 3}, "num_trials": None}


def start(database: Database, **fields) -> tuple[HandRunner, StudyState]:
    runner = HandRunner.start(database, studies.submit(database, **fields))
    return runner, state_of(runner)


def state_of(runner: HandRunner) -> StudyState:
    with runner.database.read() as session:
        return StudyState(session, *get(session, runner.study_id))


def sync(runner: HandRunner, state: StudyState) -> None:
    with runner.database.read() as session:
        state.sync(session, get(session, runner.study_id)[1])


def step(runner: HandRunner, state: StudyState, value: float = 0.5, **measured) -> NewTrial | None:
    """Propose a trial, run it and take it in; None where none may start."""
    new = state.propose()
    if new is None:
        return None
    with runner.database.unit_of_work() as session:
        trials.enqueue(session, runner.lease, new)
    runner.finish(runner.claim(new.job_id), value, **measured)
    sync(runner, state)
    return new


def enqueue(runner: HandRunner, new: NewTrial) -> None:
    with runner.database.unit_of_work() as session:
        trials.enqueue(session, runner.lease, new)


def run_all(runner: HandRunner, state: StudyState, worth=lambda new: 0.5) -> list[NewTrial]:
    """Run the study to its end, one trial after the other."""
    made = []
    while (new := state.propose()) is not None:
        enqueue(runner, new)
        runner.finish(runner.claim(new.job_id), worth(new))
        sync(runner, state)
        made.append(new)
    return made


def test_propose__keeps_to_the_concurrency(sqlite_database):
    runner, state = start(sqlite_database, concurrency=2)
    first, second = state.propose(), state.propose()
    assert first is not None
    assert second is not None
    assert state.propose() is None
    enqueue(runner, first)
    runner.finish(runner.claim(first.job_id), 0.5)
    sync(runner, state)
    assert state.propose() is not None


def test_propose__ends_with_the_last_configuration(sqlite_database):
    runner, state = start(sqlite_database, **GRID)
    made = run_all(runner, state)
    assert [new.point["optimizer.rho"] for new in made] == [0.01, 0.0707107, 0.5]
    assert state.is_over
    end = decide(state, None)
    assert end is not None
    assert (end.how, end.summary["ended_by"], end.summary["num_trials"]) == (How.SUCCEEDED, "finished", 3)


def test_seeds__follow_one_another_and_their_mean_counts(sqlite_database):
    runner, state = start(sqlite_database, seeds_per_config=3, num_trials=6)
    made = run_all(runner, state)
    assert [(new.config, new.seed) for new in made] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert made[0].point == made[1].point != made[3].point


def test_arms__are_searched_side_by_side_then_confirmed_on_new_seeds(sqlite_database):
    worth = {"xsam": 0.8, "sgd": 0.6, "sam": 0.7}
    runner, state = start(sqlite_database, control=True, num_trials=3, confirm_seeds=2)
    made = run_all(runner, state, lambda new: worth[new.arm] - 0.1 * new.config)
    searched = [new.arm for new in made if new.phase != CONFIRM]
    assert sorted(searched) == ["sam"] * 3 + ["sgd"] + ["xsam"] * 3
    assert set(searched[:3]) == {"xsam", "sgd", "sam"}
    confirmed = made[len(searched) :]
    assert [(new.arm, new.config) for new in confirmed] == [("xsam", 0), ("sgd", 0), ("sam", 0)] * 2
    assert {new.seed for new in confirmed}.isdisjoint({new.seed for new in made[: len(searched)]})


def test_restart__runs_no_finished_trial_again_and_takes_up_running_ones(sqlite_database):
    whole_runner, whole = start(sqlite_database, num_trials=8)
    expected = [new.point for new in run_all(whole_runner, whole)]
    runner, state = start(sqlite_database, num_trials=8)
    for _ in range(3):
        step(runner, state)
    running = state.propose()
    assert running is not None
    enqueue(runner, running)
    again = state_of(runner)
    assert again.live_ids == [running.job_id]
    runner.finish(runner.claim(running.job_id), 0.5)
    sync(runner, again)
    rest = run_all(runner, again)
    assert len(rest) == 4
    assert len(studies.load(sqlite_database, runner.study_id)) == 8
    points = [trial.point for trial in studies.load(sqlite_database, runner.study_id)]
    assert points[:4] == expected[:4]


def test_extension__is_taken_in_while_running(sqlite_database):
    runner, state = start(sqlite_database, **GRID)
    run_all(runner, state)
    assert state.is_over
    wide = {"optimizer.rho": {"type": "log_uniform", "low": 0.01, "high": 2.0}}
    with sqlite_database.unit_of_work() as session:
        verbs.extend(session, runner.study_id, actor=ALICE, num_trials=0, space=wide)
    with sqlite_database.unit_of_work() as session:
        get(session, runner.study_id)[1].num_configs = 5
        get(session, runner.study_id)[1].revision += 1
    sync(runner, state)
    assert not state.is_over
    assert [new.point["optimizer.rho"] for new in run_all(runner, state)] == [0.141421, 2.0]


def test_hold__lets_nothing_start_and_ends_the_study_when_nothing_runs(sqlite_database):
    runner, state = start(sqlite_database)
    step(runner, state)
    with sqlite_database.unit_of_work() as session:
        verbs.pause(session, runner.study_id, actor=ALICE)
    sync(runner, state)
    assert state.propose() is None
    assert not state.is_over
    end = decide(state, None)
    assert end is not None
    assert end.how is How.PAUSED
    with sqlite_database.unit_of_work() as session:
        verbs.stop(session, runner.study_id, actor=ALICE)
    sync(runner, state)
    end = decide(state, None)
    assert end is not None
    assert (end.how, end.summary["ended_by"]) == (How.SUCCEEDED, "stop")


def test_budget__starts_no_trial_that_could_exceed_it(sqlite_database):
    """A trial takes 2 steps x 4 epochs x 2 = 16 gradient evaluations."""
    runner, state = start(sqlite_database, budget={"grad_evals": 40}, num_trials=6)
    assert step(runner, state) is not None
    assert not state.is_budget_spent
    assert step(runner, state) is not None
    assert state.propose() is None
    end = decide(state, None)
    assert end is not None
    assert end.summary["ended_by"] == "budget"


def test_budget__gives_what_an_early_stop_saved_to_the_next_trial(sqlite_database):
    runner, state = start(sqlite_database, budget={"grad_evals": 40}, concurrency=2)
    first, second = state.propose(), state.propose()
    assert first is not None
    assert second is not None
    with sqlite_database.unit_of_work() as session:
        verbs.set_concurrency(session, runner.study_id, 3, actor=ALICE)
    enqueue(runner, first)
    enqueue(runner, second)
    sync(runner, state)
    assert state.propose() is None
    assert not state.is_over
    runner.finish(runner.claim(first.job_id), 0.3, epochs=1, grad_evals=4)
    sync(runner, state)
    assert state.propose() is not None


def test_failures__end_the_study_at_the_limit_with_the_cause_named(sqlite_database):
    runner, state = start(sqlite_database, max_failures=2)
    for kind, message in (
        (FailureKind.DIVERGED, "nan"),
        (FailureKind.USER, "no such file"),
        (FailureKind.USER, "no such file"),
    ):
        assert decide(state, None) is None
        new = state.propose()
        assert new is not None
        enqueue(runner, new)
        runner.fail(runner.claim(new.job_id), kind, message)
        sync(runner, state)
    assert state.propose() is None
    end = decide(state, None)
    assert end is not None
    assert end.how is How.FAILED
    assert end.message == "2 trials failed, the limit is 2; 2 of them (trials 2, 3): user: no such file"


@pytest.mark.parametrize("kinds", [[FailureKind.USER] * 3, [FailureKind.USER, FailureKind.DIVERGED, FailureKind.USER]])
def test_failures__of_all_trials_end_the_study_below_the_limit_too(sqlite_database, kinds):
    runner, state = start(sqlite_database, **GRID, max_failures=5)
    for kind in kinds:
        assert decide(state, None) is None
        new = state.propose()
        assert new is not None
        enqueue(runner, new)
        runner.fail(runner.claim(new.job_id), kind, "no such file")
        sync(runner, state)
    assert state.is_over
    end = decide(state, None)
    assert end is not None
    assert end.how is How.FAILED
    assert f"{kinds.count(FailureKind.USER)} trials failed, and no other has a value; " in end.message


def test_retried_failure__no_longer_counts(sqlite_database):
    runner, state = start(sqlite_database, max_failures=1)
    new = state.propose()
    assert new is not None
    enqueue(runner, new)
    runner.fail(runner.claim(new.job_id))
    sync(runner, state)
    assert state.has_failed
    with sqlite_database.unit_of_work() as session:
        verbs.retry_failed(session, runner.study_id, actor=ALICE)
    sync(runner, state)
    assert not state.has_failed
    assert state.live_ids == [new.job_id]
    runner.finish(runner.claim(new.job_id), 0.7)
    sync(runner, state)
    assert state.trials[0].value == 0.7


def test_withdrawn_trial__is_the_next_proposal(sqlite_database):
    _, state = start(sqlite_database, **GRID)
    new = state.propose()
    assert new is not None
    state.withdraw(new)
    assert state.num_live == 0
    assert state.propose() is new


def test_success__counts_before_its_rows_are_written(sqlite_database):
    _, state = start(sqlite_database, concurrency=1)
    new = state.propose()
    assert new is not None
    state.note_success(new.job_id)
    assert state.propose() is not None


def test_space_without_valid_jobs__is_named(sqlite_database):
    """Its ends are valid, each by itself and together; what lies between is not."""
    space = {"batch_size": {"type": "int", "low": 32, "high": 64}}
    base = {**studies.SMALL["base"], "resources": {"num_workers": 32}}
    _, state = start(sqlite_database, space=space, base=base, sampler={"name": "random", "seed": 5})

    for _ in range(100):
        state.propose()
        for trial in state.trials:
            state.note_success(trial.job_id)
    assert state.space_error is not None
    assert state.space_error.field == "space.batch_size"
    end = decide(state, None)
    assert end is not None
    assert (end.how, end.message) == (How.FAILED, str(state.space_error))


@pytest.mark.parametrize(
    ("wish", "how", "stops"),
    [
        (Wish.CANCEL, How.CANCELLED, Wish.CANCEL),
        (Wish.PREEMPT, How.QUEUED, Wish.PREEMPT),
        (Wish.PAUSE, How.PAUSED, Wish.PREEMPT),
    ],
)
def test_wish__decides_how_the_study_makes_way(sqlite_database, wish, how, stops):
    _, state = start(sqlite_database)
    end = decide(state, wish)
    assert end is not None
    assert (end.how, end.stops) == (how, stops)


def test_trial_states__follow_the_rows(sqlite_database):
    runner, state = start(sqlite_database)
    new = state.propose()
    assert new is not None
    enqueue(runner, new)
    runner.claim(new.job_id)
    sync(runner, state)
    (trial,) = state.trials
    assert (trial.state, trial.number) == (JobState.RUNNING, 1)


ASHA = {"early_stopping": {"name": "asha", "grace": 1 / 4, "reduction_factor": 2}, "concurrency": 4}


def begin(runner: HandRunner, state: StudyState) -> tuple[str, Lease]:
    """Propose a trial and let it run."""
    new = state.propose()
    assert new is not None
    enqueue(runner, new)
    return new.job_id, runner.claim(new.job_id)


def judge_all(state: StudyState, trial_id: str, accuracies: Sequence[float]) -> list[bool]:
    verdicts = []
    for record in epochs(accuracies):
        state.report(trial_id, record)
        verdicts.append(state.judge(trial_id, record.epoch))
    return verdicts


def test_judge__ends_a_poor_trial_and_its_end_says_so(sqlite_database):
    runner, state = start(sqlite_database, **ASHA)
    good, _ = begin(runner, state)
    poor, _ = begin(runner, state)
    assert judge_all(state, good, [0.9] * 4) == [False] * 4
    assert judge_all(state, poor, [0.1]) == [True]
    state.note_success(poor)
    ended = next(trial for trial in state.trials if trial.job_id == poor)
    assert (ended.is_stopped_early, ended.value) == (True, 0.1)


def test_judge__leaves_confirmations_and_unknown_trials_alone(sqlite_database):
    runner, state = start(sqlite_database, **ASHA, num_trials=1, confirm_seeds=1)
    searched, lease = begin(runner, state)
    assert state.is_judged(searched)
    assert judge_all(state, searched, [0.9] * 4) == [False] * 4
    runner.finish(lease, 0.9)
    sync(runner, state)
    confirming, _ = begin(runner, state)
    assert not state.is_judged(confirming)
    assert judge_all(state, confirming, [0.1] * 4) == [False] * 4
    assert not state.judge("nobody", 1)


def test_judge__after_a_restart_takes_stored_epochs_as_judged(sqlite_database):
    runner, state = start(sqlite_database, **ASHA)
    good, good_lease = begin(runner, state)
    poor, poor_lease = begin(runner, state)
    runner.measure(good_lease, [0.9] * 2)
    runner.measure(poor_lease, [0.1])
    again = state_of(runner)
    assert judge_all(again, poor, [0.1]) == [False]  # a resumed attempt repeats it
    assert judge_all(again, poor, [0.1, 0.1]) == [False, True]
    assert judge_all(again, good, [0.9] * 3) == [False] * 3


def test_retried_failure__of_before_a_restart_has_a_value(sqlite_database):
    runner, state = start(sqlite_database)
    trial_id, lease = begin(runner, state)
    runner.measure(lease, [0.7])
    runner.fail(lease)
    again = state_of(runner)
    with sqlite_database.unit_of_work() as session:
        verbs.retry_failed(session, runner.study_id, actor=ALICE)
    sync(runner, again)
    judge_all(again, trial_id, [0.7, 0.8])
    assert again.value_of(trial_id) == 0.8


def test_withdrawn_trials__all_come_again(sqlite_database):
    _, state = start(sqlite_database, **GRID, concurrency=3)
    made = [state.propose() for _ in range(3)]
    for new in made[:2]:
        assert new is not None
        state.withdraw(new)
    assert {id(state.propose()), id(state.propose())} == {id(new) for new in made[:2]}
    assert state.propose() is None


def test_threads__report_judge_propose_and_sync_at_once(sqlite_database):
    """Nothing waits for ever and no epoch is lost or judged twice, whoever comes first."""
    runner, state = start(sqlite_database, **{**ASHA, "concurrency": 8}, num_trials=40, sampler={"name": "tpe"})

    def run_trials(_: int) -> int:
        num = 0
        while (new := state.propose()) is not None:
            verdicts = judge_all(state, new.job_id, [0.5] * 4)
            assert [state.judge(new.job_id, number + 1) for number in range(4)] == verdicts == [False] * 4
            state.note_success(new.job_id)
            num += 1
        return num

    with ThreadPoolExecutor(9) as pool:
        counts = [pool.submit(run_trials, number) for number in range(8)]
        looks = pool.submit(lambda: [sync(runner, state) for _ in range(20)])
        assert sum(count.result(timeout=60) for count in counts) == 40
        looks.result(timeout=60)
    assert {trial.value for trial in state.trials} == {0.5}
    assert len({trial.config for trial in state.trials}) == 40


def test_slow_proposal__keeps_no_report_and_no_verdict_waiting(sqlite_database, monkeypatch):
    """A Gaussian process is fitted for seconds; ranks wait for verdicts meanwhile, step by step."""
    runner, state = start(sqlite_database, concurrency=2, early_stopping={"name": "asha", "grace": 0.25})
    first = state.propose()
    enqueue(runner, first)
    is_drawing, may_go_on = threading.Event(), threading.Event()
    drawn = state._generator._samplers[first.arm].propose

    def draw_slowly(config):
        is_drawing.set()
        assert may_go_on.wait(30)
        return drawn(config)

    monkeypatch.setattr(state._generator._samplers[first.arm], "propose", draw_slowly)
    with ThreadPoolExecutor(2) as pool:
        second = pool.submit(state.propose)
        assert is_drawing.wait(30)
        state.report(first.job_id, epochs([0.5])[0])
        assert pool.submit(state.judge, first.job_id, 1).result(timeout=10) in (True, False)
        assert state.num_live == 1
        assert not state.is_over
        sync(runner, state)
        may_go_on.set()
        assert second.result(timeout=30) is not None
    assert state.num_live == 2
