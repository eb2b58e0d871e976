import pytest

from xsam.services.jobs.cost import cost_of
from xsam.services.studies.arms import arms_of, confirm_seed, job_spec, search_seed
from xsam.services.studies.spec import StudySpec

RHO = {"type": "log_uniform", "low": 0.01, "high": 0.5}
SPACE = {
    "optimizer.rho": RHO,
    "optimizer.rho_max": {"type": "ratio", "of": "optimizer.rho", "factor": 2.0},
    "optimizer.ascent_steps": {"type": "choice", "values": [1, 3]},
}


def study(**fields):
    return StudySpec.model_validate({"space": SPACE, "base": {"epochs": 12}, **fields})


def test_arms__of_a_plain_study_are_its_search_alone():
    (arm,) = arms_of(study(num_trials=7))
    assert (arm.name, arm.num_configs) == ("xsam", 7)


def test_control_arms__search_the_fields_they_have():
    main, sgd, sam = arms_of(study(control=True, num_trials=7))
    assert (main.name, sgd.name, sam.name) == ("xsam", "sgd", "sam")
    assert list(sam.space) == ["optimizer.rho", "optimizer.ascent_steps"]
    assert sgd.space == {}
    assert (sgd.num_configs, sam.num_configs) == (1, 7)
    assert job_spec(study(), sgd, {}, 3).optimizer.variant == "sgd"


def test_control_arms__keep_a_searched_learning_rate():
    lr = {"type": "uniform", "low": 0.01, "high": 0.1}
    _, sgd, _ = arms_of(study(control=True, num_trials=7, space={**SPACE, "optimizer.base.lr": lr}))
    assert list(sgd.space) == ["optimizer.base.lr"]
    assert sgd.num_configs == 7


def test_control_arms__have_no_larger_grid_than_their_own():
    spec = study(control=True, sampler={"name": "grid", "points": 3})
    assert [arm.num_configs for arm in arms_of(spec)] == [6, 1, 6]


@pytest.mark.parametrize(
    ("arm", "point", "epochs"),
    [
        (0, {"optimizer.rho": 0.1, "optimizer.ascent_steps": 1}, 12),
        (0, {"optimizer.rho": 0.1, "optimizer.ascent_steps": 3}, 6),
        (1, {}, 24),
        (2, {"optimizer.rho": 0.1, "optimizer.ascent_steps": 3}, 6),
    ],
)
def test_job_spec__gives_every_trial_the_same_compute(arm, point, epochs):
    spec = study(control=True)
    job = job_spec(spec, arms_of(spec)[arm], point, 5)
    assert (job.epochs, job.seed) == (epochs, 5)
    assert cost_of(job).grad_evals == cost_of(spec.base).grad_evals


def test_job_spec__stretches_the_schedule_with_the_epochs():
    schedule = {"name": "step", "milestones": [6, 9], "warmup_epochs": 2}
    spec = study(base={"epochs": 12, "schedule": schedule})
    job = job_spec(spec, arms_of(spec)[0], {"optimizer.rho": 0.1, "optimizer.ascent_steps": 3}, 0)
    assert (job.epochs, job.schedule.milestones, job.schedule.warmup_epochs) == (6, (3, 4), 1.0)


def test_job_spec__keeps_the_epochs_where_those_are_what_is_equal():
    spec = study(compute="epochs")
    point = {"optimizer.rho": 0.1, "optimizer.ascent_steps": 3}
    assert job_spec(spec, arms_of(spec)[0], point, 0).epochs == 12


def test_job_spec__moves_the_probe_radius_with_rho():
    spec = study()
    job = job_spec(spec, arms_of(spec)[0], {"optimizer.rho": 0.3, "optimizer.ascent_steps": 1}, 0)
    assert (job.optimizer.rho, job.optimizer.rho_max) == (0.3, 0.6)


def test_seeds__of_confirmation_are_none_of_the_search():
    spec = study(base={"seed": 7})
    searched = {search_seed(spec, number) for number in range(20)}
    assert searched == set(range(7, 27))
    assert searched.isdisjoint(confirm_seed(spec, number) for number in range(20))


def test_cost__counts_gradients_and_probes():
    spec = StudySpec.model_validate({"preset": "rho", "base": {"epochs": 3, "batch_size": 100}})
    cost = cost_of(spec.base)
    assert cost.steps == 3 * 14
    assert cost.grad_evals == 2 * 3 * 14
    assert cost.probe_forwards == 3 * 21
