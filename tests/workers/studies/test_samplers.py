"""Every sampler finds what it should, and goes on after a restart as if there had been none."""

import math

import pytest

from xsam.services.jobs.states import JobState
from xsam.services.studies import space as spaces
from xsam.services.studies.algorithms import CmaEsSampler, GridSampler, QuasiRandomSampler, RandomSampler, TpeSampler
from xsam.services.studies.analysis import configs_of
from xsam.services.studies.spec import StudySpec
from xsam.services.studies.trials import TrialState
from xsam.workers.studies.samplers import make_sampler

SPACE = StudySpec.model_validate({"preset": "rho-k"}).space
SAMPLERS = [RandomSampler(), QuasiRandomSampler(), GridSampler(points=4), TpeSampler(startup_trials=5)]


def worth(point):
    """Best at rho = 0.1, k = 2."""
    return -(math.log(point["optimizer.rho"] / 0.1) ** 2) - 0.3 * abs(point["optimizer.ascent_steps"] - 2)


def trial(config, point, value, state=JobState.SUCCEEDED):
    return TrialState(
        job_id=f"t{config}",
        number=config + 1,
        arm="xsam",
        phase="search",
        config=config,
        seed=0,
        point=point,
        state=state,
        planned_grad_evals=None,
        value=value,
        grad_evals=None,
        is_stopped_early=False,
        failure_kind=None,
        failure_message=None,
    )


def search(options, num, past=()):
    """Run a search up to `num` configurations, taking up one that has come so far; return all its trials."""
    done = list(past)
    sampler = make_sampler(options, SPACE, "max", configs_of(done))
    for config in range(len(done), num):
        point = sampler.propose(config)
        if point is None:
            break
        sampler.tell(config, worth(point))
        done.append(trial(config, point, worth(point)))
    return done


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.name)
def test_restart__repeats_no_point(sampler):
    done = search(sampler, 8)
    done = search(sampler, 16, past=done)
    points = [tuple(t.point.values()) for t in done]
    assert len(points) == len(set(points)) == 16


@pytest.mark.parametrize("sampler", SAMPLERS[:3], ids=lambda sampler: sampler.name)
def test_restart__changes_nothing_for_samplers_that_count(sampler):
    whole = search(sampler, 16)
    resumed = search(sampler, 16, past=search(sampler, 5))
    assert [t.point for t in whole] == [t.point for t in resumed]


def test_tpe__learns_from_trials_of_before_a_restart():
    past = search(TpeSampler(startup_trials=5), 25)
    resumed = search(TpeSampler(startup_trials=5), 45, past=past)[25:]
    drawn = search(RandomSampler(), 45)[25:]
    mean = sum(t.value for t in resumed) / len(resumed)
    assert mean > 2 * sum(t.value for t in drawn) / len(drawn)  # both are negative: half as far from the best


def test_tpe__does_not_crowd_around_a_trial_that_still_runs():
    past = search(TpeSampler(startup_trials=5), 10)
    running = trial(10, {"optimizer.rho": 0.1, "optimizer.ascent_steps": 2}, None, JobState.RUNNING)
    sampler = make_sampler(TpeSampler(startup_trials=5), SPACE, "max", configs_of([*past, running]))
    assert sampler.propose(11) != running.point
    sampler.tell(10, 0.0)
    sampler.tell(10, 0.0)  # telling twice is no error: rows and memory may both say it
    assert sampler.propose(12) is not None


def test_tpe__takes_a_configuration_without_value_as_a_bad_one():
    """Two fifths of the space diverge, far from the best point: it learns to keep out."""
    sampler = make_sampler(TpeSampler(startup_trials=5), SPACE, "max", [])
    diverged = []
    for config in range(40):
        point = sampler.propose(config)
        diverged.append(point["optimizer.rho"] > 0.1)
        sampler.tell(config, None if diverged[-1] else -abs(math.log(point["optimizer.rho"] / 0.02)))
    assert sum(diverged[20:]) <= 4


def test_sobol__fills_the_axis_evenly():
    sampler = make_sampler(QuasiRandomSampler(seed=3), SPACE, "max", [])
    logs = sorted(math.log(sampler.propose(i)["optimizer.rho"] / 0.01) / math.log(50) for i in range(16))
    assert all(i / 16 <= log <= (i + 1) / 16 for i, log in enumerate(logs))


def test_grid__ends_and_a_wider_one_only_adds():
    done = search(GridSampler(points=2), 100)
    assert len(done) == 8
    wide = {
        **SPACE,
        "optimizer.ascent_steps": SPACE["optimizer.ascent_steps"].model_copy(update={"values": (1, 2, 3, 5, 8)}),
    }
    sampler = make_sampler(GridSampler(points=2), wide, "max", configs_of(done))
    added = [sampler.propose(8), sampler.propose(9), sampler.propose(10)]
    assert [None if p is None else p["optimizer.ascent_steps"] for p in added] == [8, 8, None]


def test_arm_without_axes__has_one_point():
    assert make_sampler(RandomSampler(), {}, "max", []).propose(0) == {}


def test_choice__of_whole_documents_survives_optuna():
    values = [{"variant": "sam", "rho": 0.1}, {"variant": "sam", "rho": 0.2}]
    space = StudySpec.model_validate({"space": {"optimizer": {"type": "choice", "values": values}}}).space
    sampler = make_sampler(TpeSampler(), space, "max", [])
    assert all(sampler.propose(i)["optimizer"] in values for i in range(6))
    assert list(spaces.axes(space)) == ["optimizer"]


RANGES = StudySpec.model_validate(
    {
        "space": {
            "optimizer.rho": {"type": "log_uniform", "low": 0.001, "high": 1.0},
            "optimizer.base.lr": {"type": "log_uniform", "low": 0.001, "high": 1.0},
        }
    }
).space


def far_off(point):
    """How far a point is from the best one, in powers of ten."""
    return math.dist([math.log10(value) for value in point.values()], (-1.0, -1.5))


def descend(num, past=()):
    """Run CMA-ES up to `num` configurations, taking up a search that has come so far; return all its trials."""
    done = list(past)
    sampler = make_sampler(CmaEsSampler(startup_trials=5, seed=1), RANGES, "min", configs_of(done))
    for config in range(len(done), num):
        point = sampler.propose(config)
        sampler.tell(config, far_off(point))
        done.append(trial(config, point, far_off(point)))
    return done


def mean_of(trials):
    return sum(t.value for t in trials) / len(trials)


def test_cma_es__comes_closer_and_goes_on_from_there_after_a_restart():
    past = descend(60)
    assert mean_of(past[40:]) < 0.5 * mean_of(past[:10])
    resumed = descend(90, past=past)[60:]
    assert mean_of(resumed) < 0.5 * mean_of(past[:10])
    assert not {tuple(t.point.values()) for t in past} & {tuple(t.point.values()) for t in resumed}


def test_cma_es__counts_what_still_runs_and_what_diverged():
    running = trial(7, {"optimizer.rho": 0.1, "optimizer.base.lr": 0.1}, None, JobState.RUNNING)
    sampler = make_sampler(CmaEsSampler(startup_trials=5), RANGES, "min", configs_of([*descend(7), running]))
    assert sampler.propose(8) != running.point
    sampler.tell(7, None)
    sampler.tell(8, 0.5)
    assert sampler.propose(9) is not None


def test_cma_es__searches_an_arm_with_one_range_too():
    one = {"optimizer.rho": RANGES["optimizer.rho"]}
    sampler = make_sampler(CmaEsSampler(startup_trials=2), one, "min", [])
    points = []
    for config in range(12):
        points.append(sampler.propose(config)["optimizer.rho"])
        sampler.tell(config, abs(math.log10(points[-1] / 0.1)))
    assert len(set(points)) == 12
