"""Early stopping by shares of compute, and the same rungs after a restart."""

import pytest

from xsam.services.metrics.records import EpochRecord
from xsam.services.studies.spec import StudySpec
from xsam.workers.studies.early_stopping import EarlyStopper, Measured, WatchedTrial, make_early_stoppers

STEPS = 10


def study(stopping, **fields):
    return StudySpec.model_validate({"preset": "rho-k", "early_stopping": stopping, "base": {"epochs": 9}, **fields})


def epochs(accuracies, k=1):
    """Return epochs of a trial with k ascent steps."""
    return [
        EpochRecord(
            epoch=epoch,
            step=STEPS * epoch,
            train_loss=1.0,
            train_accuracy=accuracy,
            eval_loss=1.0,
            eval_accuracy=accuracy,
            lr=0.1,
            epoch_s=1.0,
            samples_per_s=1.0,
            grad_evals=(k + 1) * STEPS * epoch,
            probe_forwards=0,
        )
        for epoch, accuracy in enumerate(accuracies, start=1)
    ]


def asha(unit="grad_evals", past=()):
    compute = "epochs" if unit == "epochs" else "grad_evals"
    spec = study({"name": "asha", "grace": 1 / 9, "reduction_factor": 3, "unit": unit}, compute=compute)
    return EarlyStopper(spec.early_stopping, spec, past)


def stopped_after(stopper, trial_id, records):
    """Return the epoch after which a trial is stopped, None if never."""
    for i in range(len(records)):
        if stopper.is_stopped(trial_id, records[: i + 1]):
            return i + 1
    return None


def test_asha__stops_what_is_worse_than_the_best_third_at_a_rung():
    stopper = asha()
    assert stopped_after(stopper, "a", epochs([0.5] * 2)) is None
    assert stopped_after(stopper, "b", epochs([0.7] * 2)) is None
    assert stopped_after(stopper, "c", epochs([0.4] * 2)) == 1
    assert stopped_after(stopper, "d", epochs([0.8] * 2)) is None


def test_asha__judges_three_ascent_steps_at_the_same_compute_as_one():
    """Rungs at 1, 3 and 9 of 9 epochs with k = 1; a trial with k = 3 reaches the second one in half the epochs."""
    stopper = asha()
    stopped_after(stopper, "a", epochs([0.5] * 9))
    assert stopped_after(stopper, "b", epochs([0.6, 0.4], k=3)) is None
    # 0.6 is its best so far: at the second rung, after epoch 2 (4 of 9 epochs' compute), it is compared and goes on.
    stopper = asha()
    stopped_after(stopper, "a", epochs([0.5, 0.9, 0.9]))
    assert stopped_after(stopper, "b", epochs([0.6, 0.6], k=3)) == 2


def test_asha__in_epochs_gives_three_ascent_steps_twice_the_compute():
    stopper = asha(unit="epochs")
    stopped_after(stopper, "a", epochs([0.5, 0.9, 0.9]))
    assert stopped_after(stopper, "b", epochs([0.6, 0.6, 0.6], k=3)) == 3


def test_asha__remembers_its_rungs_after_a_restart():
    records = {"a": epochs([0.5] * 4), "b": epochs([0.7] * 4), "c": epochs([0.6] * 2)}
    before = asha()
    for trial_id, measured in records.items():
        stopped_after(before, trial_id, measured)
    after = asha(past=[Measured(trial_id, measured, is_over=False) for trial_id, measured in records.items()])
    for accuracy in (0.55, 0.65, 0.75):
        for num in (1, 3):
            new = epochs([accuracy] * num)
            assert stopped_after(before, f"n{accuracy}{num}", new) == stopped_after(after, f"n{accuracy}{num}", new)


def test_asha__does_not_count_a_trial_twice_at_a_rung_it_passed_before_a_restart():
    past = [Measured("a", epochs([0.9]), False), Measured("b", epochs([0.1]), False)]
    stopper = asha(past=past)
    for _ in range(3):  # the same trials, later epochs below the next rung
        assert stopped_after(stopper, "a", epochs([0.9, 0.9])[1:]) is None
    assert stopped_after(stopper, "c", epochs([0.5])) == 1
    assert stopped_after(asha(past=past[1:]), "c", epochs([0.5])) is None


def test_asha__can_minimise_a_loss():
    spec = study({"name": "asha", "grace": 0.1, "reduction_factor": 2}, objective={"metric": "eval_loss"})
    stopper = EarlyStopper(spec.early_stopping, spec)
    good, bad = epochs([0.5]), epochs([0.5])
    object.__setattr__(bad[0], "eval_loss", 2.0)
    assert not stopper.is_stopped("a", good)
    assert stopper.is_stopped("b", bad)


def median(past=()):
    spec = study({"name": "median", "grace": 0.2, "min_trials": 2})
    return EarlyStopper(spec.early_stopping, spec, past)


def test_median__stops_below_the_median_of_the_others():
    stopper = median()
    for trial_id, accuracy in (("a", 0.5), ("b", 0.7), ("c", 0.6)):
        assert stopped_after(stopper, trial_id, epochs([accuracy] * 4)) is None
    assert stopped_after(stopper, "d", epochs([0.3] * 4)) == 2


def test_median__says_after_a_restart_what_it_would_have_said_with_all_it_knows():
    past = [Measured(n, epochs([a] * 4), n != "d") for n, a in (("a", 0.5), ("b", 0.7), ("c", 0.6), ("d", 0.3))]
    stopper = median(past=past)
    assert stopper.is_stopped("d", epochs([0.3] * 5))
    assert not stopper.is_stopped("e", epochs([0.9] * 2))


@pytest.mark.parametrize("accuracy", [0.1, 0.99])
def test_judges__keep_arms_apart(accuracy):
    spec = study({"name": "asha", "grace": 0.1})
    stoppers = make_early_stoppers(spec, ["xsam", "sgd"], {"xsam": [Measured("a", epochs([accuracy] * 3), True)]})
    assert not stoppers["sgd"].is_stopped("s", epochs([0.5]))
    assert stoppers["xsam"].is_stopped("x", epochs([0.5])) is (accuracy > 0.5)


def test_judges__are_none_where_nothing_is_stopped():
    assert make_early_stoppers(study({"name": "none"}), ["xsam"], {}) == {}


class Scripted:
    """Ends trials after the epochs it is told to, and remembers what it was asked."""

    def __init__(self, *ends_after: int) -> None:
        self.ends_after = ends_after
        self.asked: list[int] = []

    def is_stopped(self, trial_id, records):
        self.asked.append(len(records))
        return len(records) in self.ends_after


def test_watched_trial__asks_once_about_each_epoch_and_repeats_its_answers():
    trial, stopper = WatchedTrial("t", [], 0), Scripted()
    for record in epochs([0.1, 0.2, 0.3]):
        trial.add(record)
        assert not trial.judge(record.epoch, stopper, num_epochs=9)
        assert not trial.judge(record.epoch, stopper, num_epochs=9)  # the rank that asked was lost with the answer
    assert stopper.asked == [1, 2, 3]


def test_watched_trial__takes_epochs_of_before_a_restart_as_judged():
    trial, stopper = WatchedTrial("t", epochs([0.1, 0.2, 0.3]), 3), Scripted(1, 2, 3)
    for record in epochs([0.1, 0.2, 0.3, 0.4]):  # a resumed attempt repeats them
        trial.add(record)
        assert not trial.judge(record.epoch, stopper, num_epochs=9)
    assert stopper.asked == [4]
    assert [record.eval_accuracy for record in trial.epochs] == [0.1, 0.2, 0.3, 0.4]


def test_watched_trial__is_stopped_for_an_attempt_that_did_not_hear_it():
    trial, stopper = WatchedTrial("t", epochs([0.1, 0.2]), 1), Scripted(2)
    assert trial.judge(2, stopper, num_epochs=9)
    assert trial.judge(1, stopper, num_epochs=9)
    assert trial.judge(3, stopper, num_epochs=9)
    assert stopper.asked == [2]


def test_watched_trial__is_not_stopped_by_its_last_epoch():
    trial = WatchedTrial("t", epochs([0.1, 0.2]), 0)
    assert not trial.judge(2, Scripted(2), num_epochs=2)
    assert not trial.is_stopped


def hyperband(past=()):
    spec = study({"name": "hyperband", "grace": 1 / 9, "reduction_factor": 3, "brackets": 3})
    return EarlyStopper(spec.early_stopping, spec, past)


def test_hyperband__spares_some_trials_until_a_later_rung():
    stopper = hyperband()
    for number in range(20):
        stopped_after(stopper, f"good-{number}", epochs([0.9] * 9))
    ends = {stopped_after(stopper, f"poor-{number}", epochs([0.1] * 9)) for number in range(40)}
    assert ends == {1, 3, 9}


def test_hyperband__puts_a_trial_into_the_same_bracket_after_a_restart():
    good = [Measured(f"good-{number}", epochs([0.9] * 9), True) for number in range(20)]
    poor = [f"poor-{number}" for number in range(20)]
    once, again = hyperband(past=good), hyperband(past=good)
    ends = [stopped_after(once, name, epochs([0.1] * 9)) for name in poor]
    assert ends == [stopped_after(again, name, epochs([0.1] * 9)) for name in poor]
