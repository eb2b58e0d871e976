"""Early stopping by shares of compute, and the same rungs after a restart."""

import pytest

from xsam.services.metrics.records import EpochRecord
from xsam.services.studies.spec import StudySpec
from xsam.workers.studies.early_stopping import Judge, Measured, make_judges

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
    return Judge(spec.early_stopping, spec, past)


def stopped_after(judge, trial_id, records):
    """Return the epoch after which a trial is stopped, None if never."""
    for i in range(len(records)):
        if judge.is_stopped(trial_id, records[: i + 1]):
            return i + 1
    return None


def test_asha__stops_what_is_worse_than_the_best_third_at_a_rung():
    judge = asha()
    assert stopped_after(judge, "a", epochs([0.5] * 2)) is None
    assert stopped_after(judge, "b", epochs([0.7] * 2)) is None
    assert stopped_after(judge, "c", epochs([0.4] * 2)) == 1
    assert stopped_after(judge, "d", epochs([0.8] * 2)) is None


def test_asha__judges_three_ascent_steps_at_the_same_compute_as_one():
    """Rungs at 1, 3 and 9 of 9 epochs with k = 1; a trial with k = 3 reaches the second one in half the epochs."""
    judge = asha()
    stopped_after(judge, "a", epochs([0.5] * 9))
    assert stopped_after(judge, "b", epochs([0.6, 0.4], k=3)) is None
    # 0.6 is its best so far: at the second rung, after epoch 2 (4 of 9 epochs' compute), it is compared and goes on.
    judge = asha()
    stopped_after(judge, "a", epochs([0.5, 0.9, 0.9]))
    assert stopped_after(judge, "b", epochs([0.6, 0.6], k=3)) == 2


def test_asha__in_epochs_gives_three_ascent_steps_twice_the_compute():
    judge = asha(unit="epochs")
    stopped_after(judge, "a", epochs([0.5, 0.9, 0.9]))
    assert stopped_after(judge, "b", epochs([0.6, 0.6, 0.6], k=3)) == 3


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
    judge = asha(past=past)
    for _ in range(3):  # the same trials, later epochs below the next rung
        assert stopped_after(judge, "a", epochs([0.9, 0.9])[1:]) is None
    assert stopped_after(judge, "c", epochs([0.5])) == 1
    assert stopped_after(asha(past=past[1:]), "c", epochs([0.5])) is None


def test_asha__can_minimise_a_loss():
    spec = study({"name": "asha", "grace": 0.1, "reduction_factor": 2}, objective={"metric": "eval_loss"})
    judge = Judge(spec.early_stopping, spec)
    good, bad = epochs([0.5]), epochs([0.5])
    object.__setattr__(bad[0], "eval_loss", 2.0)
    assert not judge.is_stopped("a", good)
    assert judge.is_stopped("b", bad)


def median(past=()):
    spec = study({"name": "median", "grace": 0.2, "min_trials": 2})
    return Judge(spec.early_stopping, spec, past)


def test_median__stops_below_the_median_of_the_others():
    judge = median()
    for trial_id, accuracy in (("a", 0.5), ("b", 0.7), ("c", 0.6)):
        assert stopped_after(judge, trial_id, epochs([accuracy] * 4)) is None
    assert stopped_after(judge, "d", epochs([0.3] * 4)) == 2


def test_median__says_after_a_restart_what_it_would_have_said_with_all_it_knows():
    past = [Measured(n, epochs([a] * 4), n != "d") for n, a in (("a", 0.5), ("b", 0.7), ("c", 0.6), ("d", 0.3))]
    judge = median(past=past)
    assert judge.is_stopped("d", epochs([0.3] * 5))
    assert not judge.is_stopped("e", epochs([0.9] * 2))


@pytest.mark.parametrize("accuracy", [0.1, 0.99])
def test_judges__keep_arms_apart(accuracy):
    spec = study({"name": "asha", "grace": 0.1})
    judges = make_judges(spec, ["xsam", "sgd"], {"xsam": [Measured("a", epochs([accuracy] * 3), True)]})
    assert not judges["sgd"].is_stopped("s", epochs([0.5]))
    assert judges["xsam"].is_stopped("x", epochs([0.5])) is (accuracy > 0.5)


def test_judges__are_none_where_nothing_is_stopped():
    assert make_judges(study({"name": "none"}), ["xsam"], {}) == {}
